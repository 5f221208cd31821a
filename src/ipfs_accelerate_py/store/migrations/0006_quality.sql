-- What fewer bits cost on a held-out text: a row for each format of a run, and one for the float weights that the others are paired with.
CREATE TABLE quality (
    quality_id VARCHAR PRIMARY KEY,
    session_id VARCHAR NOT NULL, -- of the run: its rows saw the same windows, in the same order
    machine_hash VARCHAR NOT NULL REFERENCES machine (machine_hash),
    measured_at TIMESTAMP NOT NULL,
    provenance VARCHAR NOT NULL CHECK (provenance IN ('measured', 'simulated')),
    model VARCHAR NOT NULL,
    origin VARCHAR NOT NULL, -- of the weights, as workload.origin: of a folder the digest of its files
    format VARCHAR NOT NULL,
    made_by VARCHAR NOT NULL, -- whose format: ipfs_accelerate_py, or a peer such as llama.cpp
    solver VARCHAR,
    is_reference BOOLEAN NOT NULL, -- float weights and a float cache
    bits_per_weight DOUBLE NOT NULL CHECK (bits_per_weight > 0), -- over all tensors, scales included
    bits_per_cached_value DOUBLE CHECK (bits_per_cached_value > 0), -- of folded keys and values; NULL where the cache is float
    tokens BIGINT NOT NULL CHECK (tokens > 0), -- scored, over all windows
    nats DOUBLE[] NOT NULL CHECK (len(nats) > 0), -- of each window: mean negative log-likelihood of its scored tokens
    windows_sha256 VARCHAR NOT NULL, -- of the text's tokens as they were read
    facts JSON NOT NULL
);
