"""What a user of the backends copies and changes; nothing here is imported by the packages."""
