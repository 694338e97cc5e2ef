"""The models that are tried, a line each: the library, the name, and what makes it small.

All are built without weights, at a rate above 0 (torch_build.py). Not here: models whose drop paths
are functions, out of reach of `convert`.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

Options: TypeAlias = dict[str, Any]

IMAGE = 3, 64, 64  # of a sample: channels, height, width
BATCH = 32
THREADS = 2  # of PyTorch


@dataclass(frozen=True)
class Model:
    """A model of a library. shape: of a sample. batch: of the steps that are timed.

    name: as `timm.create_model` and `torchvision.models.get_model` have it; in transformers a
    class, after the name of its module where the package does not export it, and in torchvision
    too where no size of its own is small.
    """

    library: str
    name: str
    options: Options = field(default_factory=dict)
    shape: tuple[int, ...] = IMAGE
    batch: int = BATCH

    @property
    def title(self) -> str:
        """The library and the name, which together no other model has."""
        return f"{self.library} {self.name}"


def timm(name: str, *, shape: tuple[int, ...] = IMAGE, batch: int = BATCH, **options: Any) -> Model:
    """Return a model of timm, with what `timm.create_model` is given beside the name."""
    return Model("timm", name, options, shape, batch)


def torchvision(
    name: str, *, shape: tuple[int, ...] = IMAGE, batch: int = BATCH, **options: Any
) -> Model:
    """Return a model of torchvision, with what `get_model` is given beside the name."""
    return Model("torchvision", name, options, shape, batch)


def transformers(
    name: str, *, shape: tuple[int, ...] = IMAGE, batch: int = BATCH, **options: Any
) -> Model:
    """Return a model of transformers, with what its configuration is given."""
    return Model("transformers", name, options, shape, batch)


HEADS: Options = {"hidden_size": 96, "num_attention_heads": 3}
VIT: Options = {"image_size": 64, "patch_size": 8, "num_hidden_layers": 4, **HEADS}
VIT_MLP: Options = {"intermediate_size": 384, **VIT}  # where it is not 4 times hidden_size
DEPTHS: Options = {"depths": [1, 1, 2, 1]}
SWIN: Options = {"image_size": 64, "patch_size": 4, "window_size": 4, "embed_dim": 48}
SWIN |= {"depths": [2, 2], "num_heads": [3, 6]}
STAGES: Options = {"hidden_sizes": [32, 64, 96, 128], **DEPTHS}
PYRAMID: Options = {"num_attention_heads": [1, 2, 3, 4], **STAGES}
SWIN_TRANSFORMER: Options = {"patch_size": [4, 4], "window_size": [4, 4], "embed_dim": 48}
SWIN_TRANSFORMER |= {"depths": [2, 2], "num_heads": [3, 6]}
MAXVIT: Options = {"input_size": (64, 64), "partition_size": 4, "stem_channels": 32}
MAXVIT |= {"block_channels": [32, 64], "block_layers": [1, 1], "head_dim": 16}
CLAP: Options = {"patch_embeds_hidden_size": 48, "hidden_size": 384, **DEPTHS}
VJEPA: Options = {"crop_size": 64, "frames_per_clip": 4, "num_hidden_layers": 4, **HEADS}
VJEPA |= {"pred_hidden_size": 96, "pred_num_hidden_layers": 2, "pred_num_attention_heads": 3}

# Those that droppath_torch was written with: models/classes that were tried while it was.
TUNED = (
    timm("vit_tiny_patch16_224", img_size=64, patch_size=8, depth=4),
    timm("vit_small_patch16_224", img_size=64, patch_size=8),
    timm("vit_small_patch14_dinov2", img_size=64, patch_size=8, depth=3),
    timm("deit3_small_patch16_224", img_size=64, patch_size=8, depth=3),
    timm("beit_base_patch16_224", img_size=64, patch_size=8, depth=3, embed_dim=192, num_heads=3),
    timm("eva02_tiny_patch14_224", img_size=64, patch_size=8, depth=3),
    timm("vit_relpos_small_patch16_224", img_size=64, patch_size=8, depth=3),
    timm(
        "vit_small_patch16_18x2_224", img_size=64, patch_size=8, depth=3, embed_dim=192, num_heads=3
    ),
    timm("cait_xxs24_224", img_size=64, patch_size=8, depth=3),
    timm("coat_lite_tiny", img_size=64),
    timm("edgenext_xx_small"),
    timm("swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(2, 2, 2, 2)),
    timm("swinv2_tiny_window8_256", img_size=64, depths=(2, 2, 2, 2)),
    timm("convnext_atto"),
    timm("convnextv2_atto"),
    timm("maxvit_rmlp_pico_rw_256", img_size=64),
    timm("efficientnet_b0"),
    timm("mobilenetv3_small_050"),
    timm("regnety_002"),
    timm("resnet18"),
    timm("davit_tiny", depths=(1, 1, 2, 1)),
    timm("pvt_v2_b0"),
    timm("mvitv2_tiny", img_size=64),
    timm("crossvit_9_240", shape=(3, 240, 240), batch=8),
    timm("twins_svt_small", img_size=64),
    timm("poolformer_s12"),
    timm("xcit_nano_12_p16_224", img_size=64),
    timm("volo_d1_224", img_size=64),
    timm("levit_128s", img_size=64),
    torchvision("convnext_tiny"),
    torchvision("efficientnet_b0"),
    torchvision("swin_transformer.SwinTransformer", **SWIN_TRANSFORMER),
    torchvision("maxvit.MaxVit", **MAXVIT),
    transformers("SwinModel", **SWIN),
    transformers("DonutSwinModel", **SWIN),
    transformers("models.maskformer.modeling_maskformer_swin.MaskFormerSwinModel", **SWIN),
    transformers("ConvNextModel", **STAGES),
    transformers("ConvNextV2Model", **STAGES),
    transformers("BeitModel", **VIT_MLP),
    transformers("BeitForImageClassification", **VIT_MLP),
    transformers("Data2VecVisionModel", **VIT_MLP),
    transformers("Dinov2Model", **VIT),
    transformers("Dinov2WithRegistersModel", **VIT),
    transformers("DINOv3ViTModel", pos_embed_rescale=None, **VIT_MLP),  # by which it draws too
    transformers("Swinv2Model", **SWIN),
    transformers("FocalNetModel", image_size=64, embed_dim=48, **DEPTHS),
    transformers("SegformerModel", **PYRAMID),
    transformers("PvtModel", image_size=64, **PYRAMID),
    transformers("PvtV2Model", image_size=64, **PYRAMID),
    transformers("GLPNModel", **PYRAMID),
    transformers("HieraModel", image_size=[64, 64], embed_dim=48, **DEPTHS),
    transformers("PoolFormerModel", **STAGES),
)

# Those that were chosen afterwards, before any of them was tried.
UNTUNED = (
    timm("nextvit_small"),
    timm("tiny_vit_5m_224"),
    timm("efficientformerv2_s0", img_size=64),
    timm("hiera_tiny_224", img_size=64),
    timm("mambaout_femto"),
    timm("inception_next_atto"),
    timm("caformer_s18"),
    timm("fastvit_t8"),
    timm("sequencer2d_s", layers=(1, 1, 2, 1)),
    timm("vitamin_small_224", img_size=64),
    timm("nest_tiny", img_size=64),
    timm("focalnet_tiny_srf"),
    timm("gcvit_xxtiny", img_size=64),
    timm("rdnet_tiny"),
    timm("starnet_s1"),
    timm("csatv2"),
    transformers("ClapAudioModel", shape=(1, 64, 64), batch=8, **CLAP),
    transformers("SwiftFormerModel"),
    transformers("MgpstrModel", shape=(3, 32, 128), **HEADS),
    transformers("XCLIPVisionModel", num_frames=2, **VIT_MLP),
    transformers("VitDetModel", **VIT),
    transformers("BitModel"),
    transformers("PixioModel", **VIT_MLP),
    transformers("VJEPA2Model", shape=(4, 3, 64, 64), **VJEPA),
    transformers("DINOv3ConvNextModel", **STAGES),
)
MODELS = TUNED + UNTUNED

SWEPT = timm("vit_small_patch16_224", img_size=64, patch_size=8)  # whose steps are timed over rates
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
