import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from service.pb import interlinear_pb2 as pb
from tests.reliability.answers import Judge, Outcome, answered, refused


def _translated(text: str, seconds: float = 0.1) -> Outcome:
    hypotheses = [pb.Hypothesis(text=text)]
    translation = pb.Translation(hypotheses=hypotheses, timings=pb.Timings(decode_seconds=seconds), batch_size=3)
    results = [pb.TranslationResult(translation=translation)]
    metadata = pb.ResponseMetadata(request_id=str(seconds), model_digest="d", total_seconds=seconds)
    return answered([pb.TranslateResponse(results=results, metadata=metadata)], seconds)


def _refused(reason: str, code: int) -> Outcome:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="interlinear"))
    return refused(status_pb2.Status(code=code, details=[detail]), 0.0)


def test_answers_are_equal_that_differ_in_nothing_but_time() -> None:
    judge = Judge()
    judge.learn(0, _translated("La maison.", 0.1))
    assert judge.judge(0, _translated("La maison.", 0.2)) == "right"
    assert judge.judge(0, _translated("Le jardin.", 0.1)) == "wrong"


def test_a_refusal_is_right_where_the_idle_service_refuses_too_and_else_only_for_a_passing_reason() -> None:
    judge = Judge()
    judge.learn(0, _translated("La maison."))
    judge.learn(1, _refused("SOURCE_EMPTY", 3))
    assert judge.judge(1, _refused("SOURCE_EMPTY", 3)) == "right"
    assert judge.judge(0, _refused("SOURCE_EMPTY", 3)) == "wrong"
    assert judge.judge(0, _refused("QUEUE_FULL", 8)) == "refused"


def test_what_no_table_knows_is_lost() -> None:
    judge = Judge()
    judge.learn(0, _translated("La maison."))
    assert judge.judge(0, Outcome("UNAVAILABLE")) == "lost"
    assert judge.judge(0, _refused("QUEUE_FULL", 13)) == "lost"
    assert judge.judge(0, _refused("NOBODY_KNOWS", 8)) == "lost"


def test_a_text_that_was_refused_for_a_passing_reason_makes_no_wrong_answer() -> None:
    judge = Judge()
    judge.learn(0, _translated("La maison."))
    status = status_pb2.Status(code=8)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="QUEUE_FULL"))
    reply = pb.TranslateResponse(
        results=[pb.TranslationResult(error=status)], metadata=pb.ResponseMetadata(model_digest="d")
    )
    assert judge.judge(0, answered([reply], 0.0)) == "refused"


@pytest.mark.parametrize("outcome", [Outcome("UNAVAILABLE"), _refused("INTERNAL", 13), _refused("QUEUE_FULL", 8)])
def test_what_an_idle_service_must_not_answer_is_not_learned(outcome: Outcome) -> None:
    with pytest.raises(ValueError, match="the idle service answered"):
        Judge().learn(0, outcome)
