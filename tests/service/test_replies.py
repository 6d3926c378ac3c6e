import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bundle.decomposition import COMPONENTS
from service.client import array
from service.explainer import WarningKind
from service.pb import interlinear_pb2 as pb
from service.replies import fill_matrix

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6), elements=FLOAT32)


@given(MATRICES, st.sampled_from([pb.MATRIX_ENCODING_PACKED_FLOAT32, pb.MATRIX_ENCODING_FLOAT_LIST]))
def test_a_matrix_arrives_as_it_was_sent(values: np.ndarray, encoding: int) -> None:
    written = pb.Matrix()
    fill_matrix(written, values, encoding)
    message = pb.Matrix.FromString(written.SerializeToString())
    assert np.array_equal(array(message), values)
    assert bool(message.values) is (encoding == pb.MATRIX_ENCODING_FLOAT_LIST and values.size > 0)


def test_packed_values_are_little_endian_row_after_row() -> None:
    matrix = pb.Matrix()
    fill_matrix(matrix, np.array([[1.0, 2.0], [3.0, 4.0]]), pb.MATRIX_ENCODING_UNSPECIFIED)
    assert matrix.packed_float32.hex() == "0000803f" + "00000040" + "00004040" + "00008040"


def test_every_warning_and_component_of_the_domain_has_its_name_on_the_wire() -> None:
    assert {f"WARNING_KIND_{kind.name}" for kind in WarningKind} <= set(pb.WarningKind.keys())
    assert [f"COMPONENT_{name.upper()}" for name in COMPONENTS] == pb.Component.keys()[1:]
