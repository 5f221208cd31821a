-- What a device can do at most, measured by a probe: a row for each rate or cost. Rates are FLOP/s and bytes/s, costs seconds.
CREATE TABLE probe (
    probe_id VARCHAR PRIMARY KEY,
    session_id VARCHAR NOT NULL, -- of the run of the probe that the row belongs to
    machine_hash VARCHAR NOT NULL REFERENCES machine (machine_hash),
    environment_hash VARCHAR NOT NULL REFERENCES environment (environment_hash),
    target_hash VARCHAR NOT NULL REFERENCES target (target_hash),
    measured_at TIMESTAMP NOT NULL,
    provenance VARCHAR NOT NULL CHECK (provenance IN ('measured', 'simulated')),
    kind VARCHAR NOT NULL CHECK (kind IN ('matmul', 'bandwidth', 'dispatch', 'execution', 'copy_to_device', 'copy_from_device')),
    precision VARCHAR NOT NULL,
    size DOUBLE NOT NULL, -- FLOPs of a product, bytes of an operator or a copy; 0 for costs
    value DOUBLE NOT NULL,
    samples_ns BIGINT[] NOT NULL,
    facts JSON NOT NULL
);

-- Never a launch, and never in a view of launches: its provenance can be nothing but predicted.
CREATE TABLE prediction (
    prediction_id VARCHAR PRIMARY KEY,
    predicted_at TIMESTAMP NOT NULL,
    provenance VARCHAR NOT NULL CHECK (provenance = 'predicted'),
    model_version VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    platform VARCHAR NOT NULL,
    engine VARCHAR NOT NULL,
    device VARCHAR NOT NULL,
    browser VARCHAR,
    machine_hash VARCHAR,
    batch_size INTEGER NOT NULL,
    sequence_length INTEGER,
    new_tokens INTEGER,
    precision VARCHAR NOT NULL,
    mode VARCHAR NOT NULL,
    regime VARCHAR NOT NULL,
    latency_ms DOUBLE NOT NULL,
    latency_low_ms DOUBLE NOT NULL,
    latency_high_ms DOUBLE NOT NULL,
    level DOUBLE NOT NULL,
    memory_bytes DOUBLE NOT NULL,
    reasons VARCHAR[] NOT NULL
);
