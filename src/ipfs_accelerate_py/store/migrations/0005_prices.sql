-- What the user's hardware costs, as the user's own table says it. No export has it: it is nobody else's.
CREATE TABLE price (
    hardware VARCHAR NOT NULL,
    price_per_hour DOUBLE NOT NULL CHECK (price_per_hour > 0 AND isfinite(price_per_hour)),
    currency VARCHAR NOT NULL CHECK (currency <> ''),
    day DATE NOT NULL,
    source VARCHAR NOT NULL CHECK (source <> ''),
    imported_at TIMESTAMP NOT NULL,
    PRIMARY KEY (hardware, currency, day)
);
