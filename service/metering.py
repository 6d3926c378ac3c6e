"""What is counted of a text that was answered."""

from bundle.manifest import Manifest
from service.guard import loops
from service.metrics import Metrics
from service.quality import meter_translation
from service.tracing import exemplar
from service.translation import Answer


def meter(metrics: Metrics, manifest: Manifest, answer: Answer, seconds: float) -> None:
    """Meter ``answer`` of the bundle of ``manifest``, which took ``seconds``, queue and all."""
    model, translation, job = manifest.qualified_name, answer.translation, answer.prepared.job
    stages, requests, quality = metrics.stages, metrics.requests, metrics.quality
    for stage in ("queue", "tokenize", "encode", "decode", "detokenize"):
        stages.seconds.labels(model, stage).observe(getattr(translation.timings, stage), exemplar())
    stages.request_seconds.labels(model).observe(seconds, exemplar())
    if job.target_ids:
        return  # the caller's words: they say nothing about our translations
    decoded = answer.outcome.decoded
    best = decoded.hypotheses[0]
    requests.sentences.labels(model).inc()
    requests.source_characters.labels(model).inc(len(translation.source.text))
    requests.source_tokens.labels(model).inc(len(job.source_ids))
    requests.target_tokens.labels(model).inc(len(best.token_ids))
    requests.finish_reasons.labels(model, best.finish_reason).inc()
    requests.source_length.labels(model).observe(len(job.source_ids))
    requests.target_length.labels(model).observe(len(best.token_ids))
    quality.unknown_source_tokens.labels(model).inc(job.source_ids.count(manifest.special_ids.unk))
    if loops(translation.suspicions):
        quality.repetition_suspected.labels(model).inc()
    for suspicion in translation.suspicions:
        metrics.guard.suspicions.labels(model, suspicion.reason).inc()
    weights = decoded.traces[0].attention_weights if decoded.traces else None
    meter_translation(quality, model, job.source_ids, best, weights)
