"""What the panels ask Prometheus for, as PromQL with its legend."""

Query = tuple[str, str]  # PromQL, and the legend

CALLS = 'job=~"$job", grpc_service=~"interlinear[.].*"'
JOB = 'job=~"$job"'
MODEL = 'job=~"$job", model=~"$model"'


def rate(metric: str, by: str, labels: str = MODEL) -> str:
    """Return how much a counter grows in a second."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantiles(metric: str, by: str = "", labels: str = MODEL) -> list[Query]:
    """Return the median and what 95 and 99 of a hundred stay below, for each value of ``by``."""
    group = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return [
        (f"histogram_quantile({share}, {rate(f'{metric}_bucket', group, labels)})", f"{legend}p{share * 100:g}")
        for share in (0.5, 0.95, 0.99)
    ]


def mean(metric: str, by: str = "model", labels: str = MODEL) -> Query:
    """Return the mean of what a histogram counted."""
    return f"{rate(f'{metric}_sum', by, labels)} / {rate(f'{metric}_count', by, labels)}", f"{{{{{by}}}}}"


def median(metric: str, by: str = "model") -> Query:
    """Return the median of what a histogram counted; one that goes below 0 has no sum, and so no mean."""
    return quantiles(metric, by)[0][0], f"{{{{{by}}}}}"


def share(part: str, whole: str, by: str = "model") -> Query:
    """Return how many of ``whole`` are ``part``; ``by`` is a label of ``part``."""
    if by == "model":
        return f"{rate(part, 'model')} / {rate(whole, 'model')}", "{{model}}"
    return f"{rate(part, f'model, {by}')} / on (model) group_left {rate(whole, 'model')}", f"{{{{model}}}} {{{{{by}}}}}"
