-- Every summary is a view. MB is 10^6 bytes.

-- As spec.Target.label: parts that say nothing, or say it again, are left out.
CREATE MACRO target_label(parts) AS array_to_string(
    list_filter(parts, lambda part, position: part <> 'default' AND NOT list_contains(parts[: position - 1], part)), ' · '
);

-- One row per launch. Times of a launch that did not end well are NULL: what it left of samples is no result.
CREATE VIEW launch_summary AS
SELECT
    launch.launch_id,
    launch.campaign_id,
    launch.spec_hash,
    spec.workload_hash,
    spec.target_hash,
    launch.machine_hash,
    launch.environment_hash,
    launch.launch_index,
    launch.order_index,
    launch.started_at,
    launch.duration_s,
    workload.* EXCLUDE (workload_hash),
    target.* EXCLUDE (target_hash),
    target_label([target.platform, coalesce(nullif(target.browser, ''), target.engine), target.device]) AS label,
    launch.provenance,
    launch.status,
    CASE WHEN launch.status = 'ok' THEN list_median(launch.samples_ns) / 1e6 END AS median_ms,
    len(launch.samples_ns) AS n_samples,
    launch.phases_ns['first_inference'] / 1e6 AS first_inference_ms,
    launch.phases_ns['fetch'] / 1e6 AS fetch_ms,
    launch.phases_ns['load'] / 1e6 AS load_ms,
    launch.phases_ns['compile'] / 1e6 AS compile_ms,
    launch.phases_ns['warm_up'] / 1e6 AS warm_up_ms,
    CASE WHEN launch.status = 'ok' THEN list_median(launch.first_token_ns) / 1e6 END AS time_to_first_token_ms,
    CASE WHEN launch.status = 'ok' THEN list_median(launch.per_token_ns) / 1e6 END AS time_per_output_token_ms,
    CASE WHEN launch.status = 'ok' THEN workload.batch_size / (list_median(launch.samples_ns) / 1e9) END AS throughput_per_s,
    launch.host_peak_bytes / 1e6 AS host_peak_mb,
    launch.device_peak_bytes / 1e6 AS device_peak_mb,
    launch.weights_bytes / 1e6 AS weights_mb,
    accuracy.cosine,
    accuracy.relative_error,
    accuracy.top1_agreement,
    accuracy.passed AS accuracy_passed,
    accuracy.rule AS accuracy_rule,
    launch.coverage_provider,
    -- A share of no nodes is 0, as in platforms.base.Coverage.
    CASE WHEN launch.coverage_nodes IS NOT NULL THEN coalesce(
        coalesce(launch.coverage_nodes[launch.coverage_provider], 0) / nullif(list_sum(map_values(launch.coverage_nodes)), 0), 0
    ) END AS coverage_share,
    launch.software_adapter,
    launch.bytes_read_back,
    launch.steady,
    launch.stop_reason,
    launch.error_class,
    launch.error_message,
    launch.error_phase
FROM launch
JOIN spec USING (spec_hash)
JOIN workload USING (workload_hash)
JOIN target USING (target_hash)
LEFT JOIN accuracy USING (launch_id);

-- One row per spec, machine and provenance: over one campaign, or over all of them where campaign is NULL.
-- median_ms is the median of launch medians, since the launch is the sample. Percentiles pool the iterations of all launches
-- that ended well, and are NULL below the n at which the largest lies above the percentile with 95 % confidence
-- (29, 59, 299: measure.statistics.samples_needed).
CREATE MACRO spec_summary_of(campaign) AS TABLE
WITH pooled AS (
    SELECT spec_hash, machine_hash, provenance, flatten(list(samples_ns)) AS samples_ns
    FROM launch
    WHERE status = 'ok' AND (campaign IS NULL OR campaign_id = campaign)
    GROUP BY ALL
),
summary AS (
    SELECT
        spec_hash, workload_hash, target_hash, machine_hash, provenance,
        model_class, size, weights, origin, task, batch_size, sequence_length, new_tokens, precision, mode,
        platform, engine, device, browser, label,
        count(*) FILTER (status = 'ok') AS launches_ok,
        count(*) FILTER (status <> 'ok') AS launches_failed,
        median(median_ms) AS median_ms,
        min(median_ms) AS min_median_ms,
        max(median_ms) AS max_median_ms,
        median(throughput_per_s) AS throughput_per_s,
        median(time_to_first_token_ms) AS time_to_first_token_ms,
        median(time_per_output_token_ms) AS time_per_output_token_ms,
        median(first_inference_ms) FILTER (status = 'ok') AS first_inference_ms,
        median(fetch_ms) FILTER (status = 'ok') AS fetch_ms,
        median(load_ms) FILTER (status = 'ok') AS load_ms,
        median(compile_ms) FILTER (status = 'ok') AS compile_ms,
        max(host_peak_mb) AS host_peak_mb,
        max(device_peak_mb) AS device_peak_mb,
        max(weights_mb) AS weights_mb,
        min(cosine) AS min_cosine,
        max(relative_error) AS max_relative_error,
        -- True only when every launch that ended well was checked and passed; NULL when none ended well.
        bool_and(coalesce(accuracy_passed, false)) FILTER (status = 'ok') AS accuracy_passed,
        min(coverage_share) AS min_coverage_share,
        bool_or(software_adapter) AS software_adapter,
        count(*) FILTER (status = 'ok' AND NOT steady) AS launches_not_steady,
        arg_max(error_class, started_at) FILTER (status <> 'ok') AS latest_error_class,
        arg_max(error_message, started_at) FILTER (status <> 'ok') AS latest_error_message,
        max(started_at) AS latest_started_at
    FROM launch_summary
    WHERE campaign IS NULL OR campaign_id = campaign
    GROUP BY ALL
)
SELECT
    summary.*,
    launches_ok > 0 AND accuracy_passed AS ranked,
    coalesce(len(pooled.samples_ns), 0) AS n_samples,
    CASE WHEN len(pooled.samples_ns) >= 29 THEN list_aggregate(pooled.samples_ns, 'quantile_cont', 0.90) / 1e6 END AS p90_ms,
    CASE WHEN len(pooled.samples_ns) >= 59 THEN list_aggregate(pooled.samples_ns, 'quantile_cont', 0.95) / 1e6 END AS p95_ms,
    CASE WHEN len(pooled.samples_ns) >= 299 THEN list_aggregate(pooled.samples_ns, 'quantile_cont', 0.99) / 1e6 END AS p99_ms
FROM summary
LEFT JOIN pooled USING (spec_hash, machine_hash, provenance);

CREATE VIEW spec_summary AS FROM spec_summary_of(NULL);

CREATE VIEW campaign_summary AS
SELECT
    campaign.campaign_id,
    campaign.created_at,
    campaign_end.ended_at,
    CASE WHEN campaign_end.ended_at IS NULL THEN 'unfinished' ELSE 'finished' END AS status,
    campaign.request_hash,
    campaign.command,
    campaign.seed,
    TRY_CAST(campaign.plan ->> '$.launches' AS BIGINT) AS launches_planned,
    count(launch.launch_id) FILTER (launch.status = 'ok') AS launches_ok,
    count(launch.launch_id) FILTER (launch.status = 'failed') AS launches_failed,
    count(launch.launch_id) FILTER (launch.status = 'unsupported') AS launches_unsupported
FROM campaign
LEFT JOIN campaign_end USING (campaign_id)
LEFT JOIN launch USING (campaign_id)
GROUP BY ALL;
