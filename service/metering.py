"""What is counted of a text that was answered."""

from bundle.manifest import Manifest
from service.guard import loops
from service.metrics import Metrics
from service.metrics.registration import SeriesOf
from service.quality import meter_translation
from service.tracing import exemplar
from service.translation import Answer


def meter(metrics: Metrics, series: SeriesOf, manifest: Manifest, answer: Answer, seconds: float) -> None:
    """Meter ``answer`` of the bundle of ``manifest``, whose ``series`` they are; it took ``seconds``, queue and all."""
    translation, job, trace = answer.translation, answer.prepared.job, exemplar()
    stages, requests, quality = metrics.stages, metrics.requests, metrics.quality
    for stage in ("queue", "tokenize", "encode", "decode", "detokenize"):
        series(stages.seconds, stage).observe(getattr(translation.timings, stage), trace)
    series(stages.request_seconds).observe(seconds, trace)
    if job.target_ids:
        return  # the caller's words: they say nothing about our translations
    decoded = answer.outcome.decoded
    best = decoded.hypotheses[0]
    series(requests.sentences).inc()
    series(requests.source_characters).inc(len(translation.source.text))
    series(requests.source_tokens).inc(len(job.source_ids))
    series(requests.target_tokens).inc(len(best.token_ids))
    series(requests.finish_reasons, best.finish_reason).inc()
    series(requests.source_length).observe(len(job.source_ids))
    series(requests.target_length).observe(len(best.token_ids))
    series(quality.unknown_source_tokens).inc(job.source_ids.count(manifest.special_ids.unk))
    if loops(translation.suspicions):
        series(quality.repetition_suspected).inc()
    for suspicion in translation.suspicions:
        series(metrics.guard.suspicions, suspicion.reason).inc()
    weights = decoded.traces[0].attention_weights if decoded.traces else None
    meter_translation(quality, series, job.source_ids, best, weights)
