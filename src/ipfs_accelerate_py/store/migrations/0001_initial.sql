-- Tables hold what was observed and are only ever added to. Times of iterations are nanoseconds, timestamps are UTC.
-- machine, environment, workload, target and spec are keyed by the hash of their canonical JSON, so that stores can be merged.

CREATE TABLE schema_migration (
    version INTEGER PRIMARY KEY,
    name VARCHAR NOT NULL,
    applied_at TIMESTAMP NOT NULL
);

CREATE TABLE machine (machine_hash VARCHAR PRIMARY KEY, facts JSON NOT NULL);

CREATE TABLE environment (environment_hash VARCHAR PRIMARY KEY, facts JSON NOT NULL);

CREATE TABLE workload (
    workload_hash VARCHAR PRIMARY KEY,
    model_class VARCHAR NOT NULL,
    size VARCHAR NOT NULL,
    weights VARCHAR NOT NULL,
    origin VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    batch_size INTEGER NOT NULL,
    sequence_length INTEGER,
    new_tokens INTEGER,
    precision VARCHAR NOT NULL,
    mode VARCHAR NOT NULL
);

CREATE TABLE target (
    target_hash VARCHAR PRIMARY KEY,
    platform VARCHAR NOT NULL,
    engine VARCHAR NOT NULL,
    device VARCHAR NOT NULL,
    browser VARCHAR
);

CREATE TABLE spec (
    spec_hash VARCHAR PRIMARY KEY,
    workload_hash VARCHAR NOT NULL REFERENCES workload (workload_hash),
    target_hash VARCHAR NOT NULL REFERENCES target (target_hash)
);

CREATE TABLE campaign (
    campaign_id VARCHAR PRIMARY KEY,
    created_at TIMESTAMP NOT NULL,
    request_hash VARCHAR NOT NULL, -- equal for campaigns that ask for the same: finds the one to resume
    plan JSON NOT NULL,
    command VARCHAR NOT NULL,
    seed BIGINT NOT NULL
);

-- A campaign without a row here was interrupted or is still running.
CREATE TABLE campaign_end (campaign_id VARCHAR PRIMARY KEY REFERENCES campaign (campaign_id), ended_at TIMESTAMP NOT NULL);

CREATE TABLE launch (
    launch_id VARCHAR PRIMARY KEY,
    campaign_id VARCHAR NOT NULL REFERENCES campaign (campaign_id),
    spec_hash VARCHAR NOT NULL REFERENCES spec (spec_hash),
    machine_hash VARCHAR NOT NULL REFERENCES machine (machine_hash),
    environment_hash VARCHAR NOT NULL REFERENCES environment (environment_hash),
    launch_index INTEGER NOT NULL,
    order_index INTEGER NOT NULL,
    started_at TIMESTAMP NOT NULL,
    duration_s DOUBLE NOT NULL,
    provenance VARCHAR NOT NULL CHECK (provenance IN ('measured', 'simulated')), -- a prediction is never a launch
    status VARCHAR NOT NULL CHECK (status IN ('ok', 'failed', 'unsupported')),
    error_class VARCHAR,
    error_message VARCHAR,
    error_phase VARCHAR,
    phases_ns MAP(VARCHAR, BIGINT) NOT NULL,
    warm_up_ns BIGINT[] NOT NULL,
    samples_ns BIGINT[] NOT NULL,
    first_token_ns BIGINT[] NOT NULL,
    per_token_ns BIGINT[] NOT NULL,
    steady BOOLEAN,
    stop_reason VARCHAR,
    clock_resolution_ns BIGINT,
    host_peak_bytes BIGINT,
    device_peak_bytes BIGINT,
    weights_bytes BIGINT,
    coverage_provider VARCHAR,
    coverage_nodes MAP(VARCHAR, BIGINT),
    software_adapter BOOLEAN,
    bytes_read_back BIGINT,
    facts JSON NOT NULL,
    noise JSON NOT NULL,
    UNIQUE (campaign_id, spec_hash, launch_index)
);

CREATE TABLE accuracy (
    launch_id VARCHAR PRIMARY KEY REFERENCES launch (launch_id),
    cosine DOUBLE NOT NULL,
    relative_error DOUBLE NOT NULL,
    top1_agreement DOUBLE,
    passed BOOLEAN NOT NULL,
    rule VARCHAR NOT NULL
);
