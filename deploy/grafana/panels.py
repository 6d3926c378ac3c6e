"""What the dashboard shows.

A row is a question that somebody on call asks; a panel is a title, a unit and the queries that answer it.
"""

from promql import CALLS, JOB, MODEL, Query, mean, median, quantiles, rate, share

Panel = tuple[str, str, list[Query]]  # title, unit, queries

HITS = rate("interlinear_cache_hits_total", "job", JOB)

ROWS: dict[str, list[Panel]] = {
    "Are callers served? (rate, errors, duration)": [
        (
            "Calls",
            "reqps",
            [(rate("grpc_server_started_total", "grpc_method, transport", CALLS), "{{grpc_method}} {{transport}}")],
        ),
        ("Calls by how they end", "reqps", [(rate("grpc_server_handled_total", "grpc_code", CALLS), "{{grpc_code}}")]),
        (
            "Failed, and slow: share of calls",
            "percentunit",
            [
                (f"job:interlinear_errors:ratio_rate5m{{{JOB}}}", "failed"),
                (f"job:interlinear_slow:ratio_rate5m{{{JOB}}}", "slow"),
            ],
        ),
        ("Duration of a call", "s", quantiles("grpc_server_handling_seconds", "grpc_method", CALLS)),
        ("Duration of a text", "s", quantiles("interlinear_request_duration_seconds")),
        (
            "Calls in flight",
            "short",
            [(f"sum by (instance) (interlinear_requests_in_flight{{{JOB}}})", "{{instance}}")],
        ),
        (
            "Refused or failed, by reason",
            "reqps",
            [(rate("interlinear_request_errors_total", "reason", JOB), "{{reason}}")],
        ),
        (
            "Work: a second",
            "short",
            [
                (rate("interlinear_sentences_total", "model"), "{{model}} sentences"),
                (rate("interlinear_source_tokens_total", "model"), "{{model}} source tokens"),
                (rate("interlinear_target_tokens_total", "model"), "{{model}} target tokens"),
                (rate("interlinear_source_characters_total", "model"), "{{model}} characters"),
            ],
        ),
    ],
    "Streams, documents and the cache": [
        ("Streams open", "short", [(f"sum by (instance) (interlinear_streams_open{{{JOB}}})", "{{instance}}")]),
        (
            "Messages",
            "short",
            [
                (rate("grpc_server_msg_received_total", "grpc_method", CALLS), "{{grpc_method}} received"),
                (rate("grpc_server_msg_sent_total", "grpc_method", CALLS), "{{grpc_method}} sent"),
            ],
        ),
        (
            "Documents",
            "short",
            [
                (rate("interlinear_documents_total", "result", JOB), "documents {{result}}"),
                (rate("interlinear_document_sentences_total", "result", JOB), "sentences {{result}}"),
            ],
        ),
        ("Time to the first token", "s", quantiles("interlinear_time_to_first_token_seconds")),
        (
            "Texts found in the cache",
            "percentunit",
            [
                (f"{HITS} / ({HITS} + {rate('interlinear_cache_misses_total', 'job', JOB)})", "{{job}}"),
            ],
        ),
        (
            "The cache",
            "short",
            [
                (f"sum by (instance) (interlinear_cache_entries{{{JOB}}})", "{{instance}} entries"),
                (f"sum by (instance) (interlinear_cache_bytes{{{JOB}}})", "{{instance}} bytes"),
                (rate("interlinear_cache_evictions_total", "instance", JOB), "{{instance}} evictions a second"),
            ],
        ),
    ],
    "Where does the time go? (batcher)": [
        ("Stages, p95", "s", [quantiles("interlinear_stage_duration_seconds", "stage")[1]]),
        (
            "Queue",
            "short",
            [
                (f"sum by (instance, model) (interlinear_queue_depth{{{MODEL}}})", "{{instance}} {{model}} waiting"),
                (
                    f"sum by (instance, model) (interlinear_queue_capacity{{{MODEL}}})",
                    "{{instance}} {{model}} capacity",
                ),
                (
                    f"sum by (instance, model) (interlinear_queue_tokens{{{MODEL}}})",
                    "{{instance}} {{model}} tokens waiting",
                ),
                (
                    f"sum by (instance, model) (interlinear_running_sentences{{{MODEL}}})",
                    "{{instance}} {{model}} running",
                ),
            ],
        ),
        (
            "Sentences refused",
            "short",
            [(rate("interlinear_queue_rejections_total", "model, reason"), "{{model}} {{reason}}")],
        ),
        ("Sentences in a step", "short", quantiles("interlinear_batch_size")),
        ("Padding", "percentunit", [mean("interlinear_batch_padding_ratio")]),
        (
            "Given up",
            "short",
            [
                (rate("interlinear_deadline_drops_total", "where"), "deadline {{where}}"),
                (rate("interlinear_cancellations_total", "where"), "cancelled {{where}}"),
                (rate("interlinear_cancelled_steps_saved_total", "model"), "{{model}} steps saved"),
            ],
        ),
        ("How searches end", "short", [(rate("interlinear_finish_reason_total", "reason"), "{{reason}}")]),
        (
            "Lengths, p95",
            "short",
            [
                (quantiles("interlinear_source_length_tokens", "model")[1][0], "{{model}} source"),
                (quantiles("interlinear_target_length_tokens", "model")[1][0], "{{model}} target"),
            ],
        ),
    ],
    "Does the engine run? (runtime)": [
        (
            "Health",
            "short",
            [
                (f"min by (instance, model) (interlinear_engine_healthy{{{MODEL}}})", "{{instance}} {{model}}"),
                (
                    f"sum by (instance, reason) (increase(interlinear_engine_rebuilds_total{{{MODEL}}}[5m]))",
                    "{{instance}} rebuilt: {{reason}}",
                ),
            ],
        ),
        ("A call of ONNX Runtime, p95", "s", [quantiles("interlinear_session_run_duration_seconds", "graph")[1]]),
        ("Calls of ONNX Runtime", "short", [(rate("interlinear_batch_executions_total", "graph"), "{{graph}}")]),
        ("A step of a batch", "s", quantiles("interlinear_decode_step_duration_seconds")),
        (
            "Share of steps outside ONNX Runtime",
            "percentunit",
            [share("interlinear_decode_step_overhead_seconds_total", "interlinear_decode_step_duration_seconds_sum")],
        ),
        (
            "Models",
            "short",
            [
                (f"sum by (instance) (interlinear_models_loaded{{{JOB}}})", "{{instance}} loaded"),
                (f"sum by (instance) (interlinear_bundles_refused{{{JOB}}})", "{{instance}} refused"),
                (rate("interlinear_model_loads_total", "result", JOB), "loads a second: {{result}}"),
            ],
        ),
        (
            "Time to load a model",
            "s",
            [
                (
                    f"max by (instance, model) (interlinear_model_load_duration_seconds{{{MODEL}}})",
                    "{{instance}} {{model}}",
                ),
                quantiles("interlinear_bundle_load_duration_seconds", labels=JOB)[2],
            ],
        ),
        (
            "Memory",
            "bytes",
            [
                (f"process_resident_memory_bytes{{{JOB}}}", "{{instance}} resident"),
                (f"process_virtual_memory_bytes{{{JOB}}}", "{{instance}} virtual"),
                (f"interlinear_memory_limit_bytes{{{JOB}}}", "{{instance}} limit"),
                (f"interlinear_unsent_reply_bytes{{{JOB}}}", "{{instance}} replies unread"),
                (f"interlinear_models_bytes{{{JOB}}}", "{{instance}} models"),
                (f"interlinear_models_budget_bytes{{{JOB}}}", "{{instance}} models, at most"),
            ],
        ),
        (
            "Process",
            "short",
            [
                (f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}} processors used"),
                (f"process_open_fds{{{JOB}}} / process_max_fds{{{JOB}}}", "{{instance}} share of file descriptors"),
                (f"time() - process_start_time_seconds{{{JOB}}}", "{{instance}} age in seconds"),
            ],
        ),
        (
            "Garbage of Python",
            "short",
            [
                (rate("python_gc_collections_total", "generation", JOB), "collections of generation {{generation}}"),
                (rate("python_gc_objects_collected_total", "generation", JOB), "objects of generation {{generation}}"),
                (rate("python_gc_objects_uncollectable_total", "generation", JOB), "never freed, {{generation}}"),
            ],
        ),
    ],
    "Are the translations good? (quality)": [
        ("Confidence", "percentunit", [mean("interlinear_sequence_confidence_ratio")]),
        ("Log-probability of a token, nats", "short", [median("interlinear_token_log_probability_nats")]),
        ("Target over source, in tokens", "short", [mean("interlinear_length_ratio")]),
        ("Copied from the source", "percentunit", [mean("interlinear_copied_source_ratio")]),
        (
            "Repetition",
            "percentunit",
            [
                share("interlinear_repetition_suspected_total", "interlinear_sentences_total"),
                mean("interlinear_repeated_pairs_ratio"),
            ],
        ),
        ("Suspicions", "percentunit", [share("interlinear_suspicions_total", "interlinear_sentences_total", "reason")]),
        (
            "Decoded again",
            "short",
            [(rate("interlinear_guard_retries_total", "model, result"), "{{model}} {{result}}")],
        ),
        (
            "Source tokens in no vocabulary",
            "percentunit",
            [share("interlinear_unknown_source_tokens_total", "interlinear_source_tokens_total")],
        ),
        (
            "Drift: distance from the reference",
            "short",
            [(f"max by (model, signal) (interlinear_drift_distance{{{MODEL}}})", "{{model}} {{signal}}")],
        ),
    ],
    "What do explanations say? (interpretability)": [
        ("Explanations", "short", [(rate("interlinear_explanations_total", "view, result"), "{{view}} {{result}}")]),
        ("Entropy of attention, nats", "short", [mean("interlinear_alignment_entropy_nats")]),
        ("Largest weight", "percentunit", [mean("interlinear_alignment_max_weight_ratio")]),
        ("Monotone steps", "percentunit", [mean("interlinear_alignment_monotonicity_ratio")]),
        ("Uncovered source", "percentunit", [mean("interlinear_alignment_uncovered_source_ratio")]),
        ("Shares of the nine terms", "percentunit", [median("interlinear_decomposition_share_ratio", "term")]),
        ("Share of delta", "percentunit", [median("interlinear_decomposition_delta_ratio")]),
        ("Reconstruction error, p99", "none", [quantiles("interlinear_decomposition_reconstruction_error_ratio")[2]]),
        (
            "Tokens the tables never saw",
            "short",
            [
                (rate("interlinear_decomposition_unseen_tokens_total", "side"), "{{side}} tokens a second"),
                mean("interlinear_decomposition_unseen_ratio"),
            ],
        ),
    ],
    "Who comes in? (access)": [
        (
            "Refused for who asks, or how much",
            "reqps",
            [(rate("interlinear_access_refusals_total", "reason", JOB), "{{reason}}")],
        ),
        (
            "Days until the certificate ends",
            "d",
            [
                (
                    f"((interlinear_certificate_expiry_timestamp_seconds{{{JOB}}} > 0) - time()) / 86400",
                    "{{instance}}",
                )
            ],
        ),
        (
            "Files read again",
            "short",
            [
                (f"sum by (result) (interlinear_credential_reloads_total{{{JOB}}})", "credentials {{result}}"),
                (f"sum by (result) (interlinear_certificate_reloads_total{{{JOB}}})", "certificate {{result}}"),
            ],
        ),
    ],
}

TABLES: list[Panel] = [
    ("Models", "none", [(f"interlinear_model_info{{{MODEL}}}", "")]),
    ("Where they run", "none", [(f"interlinear_execution_provider_active{{{MODEL}}}", "")]),
    ("Since when", "dateTimeFromNow", [(f"interlinear_model_loaded_timestamp_seconds{{{MODEL}}} * 1000", "")]),
    ("Versions", "none", [(f"interlinear_build_info{{{JOB}}}", ""), (f"python_info{{{JOB}}}", "")]),
]
