"""The reader of compiled programs, on lines that XLA wrote for TPU, GPU and CPU."""

from conformance.hlo import collectives, floating_shapes, sees

# Of programs compiled by jax 0.10.2 for a TPU v5e, an H100 and a CPU, shortened.
TPU = """
  %all-reduce-start.1 = (f32[16]{0:T(128)}, f32[3,16]{1,0:T(8,128)(2,1)}) all-reduce-start(%a, %b)
  %all-reduce-done.1 = f32[16]{0:T(128)} all-reduce-done(%all-reduce-start.1)
  ROOT %cp = (bf16[8,4]{1,0:T(8,128)(2,1)}, /*index=1*/u32[]{:S(2)}) collective-permute-start(%x)
"""
CUDA = """
  %all-gather = bf16[128,32,32,16]{3,2,1,0} all-gather(%fusion.3), channel_id=2, dimensions={0}
  ROOT %tuple = (bf16[32,32,32,16]{3,2,1,0}, pred[128]{0}) tuple(%bitcast, %keep)
"""
CPU = """
  all-reduce.3 = f32[] all-reduce(add.2), replica_groups={{0,1,2,3}}, to_apply=region_0
  %all-reduce_fusion = f32[4]{0} fusion(%all-reduce.3), kind=kLoop, calls=%all-gather_computation
"""


def test_each_kind_of_collective_is_counted_once_also_if_it_is_asynchronous_or_gives_a_tuple():
    assert collectives(TPU) == {"all-reduce": 1, "collective-permute": 1}
    assert collectives(CUDA) == {"all-gather": 1}


def test_a_name_that_only_speaks_of_a_collective_is_none():
    assert collectives(CPU) == {"all-reduce": 1}


def test_floating_arrays_are_those_of_results_and_of_tuples():
    assert floating_shapes(TPU) == {(16,), (3, 16), (8, 4)}
    assert floating_shapes(CUDA) == {(128, 32, 32, 16), (32, 32, 32, 16)}
    assert floating_shapes(CPU) == {(), (4,)}


def test_the_whole_batch_is_seen_where_an_array_has_it_in_place_of_the_share():
    assert sees(CUDA, 128, 32) == 128
    assert sees(CUDA.replace("bf16[128,", "bf16[256,"), 128, 32) == 32


def test_an_axis_that_happens_to_be_as_long_is_no_batch():
    split = "%reduce = f32[128,256,16]{2,1,0} reduce(%bitcast, %zero), dimensions={1}\n"
    loss = "%loss = f32[128]{0} add(%a, %b)\n%part = f32[32]{0} add(%a, %b)\n"
    assert sees(loss, 128, 32) == 32
    local = "%x = f32[32,32,32,16]{3,2,1,0} parameter(0)\n"
    assert sees(split + local, 128, 32) == 32
