-- As before, and only what was measured is ranked.
CREATE OR REPLACE MACRO spec_summary_of(campaign) AS TABLE
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
    launches_ok > 0 AND accuracy_passed AND provenance = 'measured' AS ranked,
    coalesce(len(pooled.samples_ns), 0) AS n_samples,
    CASE WHEN len(pooled.samples_ns) >= 29 THEN list_aggregate(pooled.samples_ns, 'quantile_cont', 0.90) / 1e6 END AS p90_ms,
    CASE WHEN len(pooled.samples_ns) >= 59 THEN list_aggregate(pooled.samples_ns, 'quantile_cont', 0.95) / 1e6 END AS p95_ms,
    CASE WHEN len(pooled.samples_ns) >= 299 THEN list_aggregate(pooled.samples_ns, 'quantile_cont', 0.99) / 1e6 END AS p99_ms
FROM summary
LEFT JOIN pooled USING (spec_hash, machine_hash, provenance);

-- As before, with the provenance of the campaign's launches.
CREATE OR REPLACE VIEW campaign_summary AS
SELECT
    campaign.campaign_id,
    campaign.created_at,
    campaign_end.ended_at,
    CASE WHEN campaign_end.ended_at IS NULL THEN 'unfinished' ELSE 'finished' END AS status,
    campaign.request_hash,
    campaign.command,
    campaign.seed,
    -- NULL before the first launch; one that lists two would mix what must not be mixed.
    string_agg(DISTINCT launch.provenance, ', ' ORDER BY launch.provenance) AS provenance,
    TRY_CAST(campaign.plan ->> '$.launches' AS BIGINT) AS launches_planned,
    count(launch.launch_id) FILTER (launch.status = 'ok') AS launches_ok,
    count(launch.launch_id) FILTER (launch.status = 'failed') AS launches_failed,
    count(launch.launch_id) FILTER (launch.status = 'unsupported') AS launches_unsupported
FROM campaign
LEFT JOIN campaign_end USING (campaign_id)
LEFT JOIN launch USING (campaign_id)
GROUP BY ALL;
