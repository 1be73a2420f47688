-- The tables of an embedded ledger as the program made them before there were migrations (version 1).
CREATE TABLE meta (
    "key" TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY ("key")
);
CREATE TABLE campaigns (
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    provider TEXT NOT NULL,
    sender_id INTEGER NOT NULL,
    state TEXT DEFAULT 'open' NOT NULL,
    columns TEXT NOT NULL,
    phone_column TEXT NOT NULL,
    settings TEXT NOT NULL,
    plan_hash TEXT NOT NULL,
    planned_at BIGINT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (name)
);
CREATE TABLE recipients (
    id INTEGER NOT NULL,
    campaign_id INTEGER NOT NULL,
    position INTEGER,
    "row" INTEGER,
    phone TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    detail TEXT DEFAULT '' NOT NULL,
    code TEXT DEFAULT '' NOT NULL,
    queue_id TEXT DEFAULT '' NOT NULL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    not_before BIGINT DEFAULT '0' NOT NULL,
    first_attempt_at BIGINT DEFAULT '0' NOT NULL,
    last_attempt_at BIGINT DEFAULT '0' NOT NULL,
    delivery TEXT DEFAULT '' NOT NULL,
    run_id INTEGER,
    PRIMARY KEY (id)
);
CREATE INDEX ix_recipients_waiting ON recipients (campaign_id, position) WHERE status IN ('pending', 'retry_wait');
CREATE UNIQUE INDEX ux_recipients_phone ON recipients (campaign_id, phone) WHERE status <> 'skipped';
CREATE INDEX ix_recipients_order ON recipients (campaign_id, position);
CREATE TABLE messages (
    id INTEGER NOT NULL,
    raw_phone TEXT NOT NULL,
    country TEXT NOT NULL,
    image TEXT NOT NULL,
    caption TEXT NOT NULL,
    scheduled_at BIGINT,
    payload BLOB,
    own TEXT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE runs (
    id INTEGER NOT NULL,
    campaign_id INTEGER NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT DEFAULT '0' NOT NULL,
    owner TEXT NOT NULL,
    plan_hash TEXT NOT NULL,
    ending TEXT DEFAULT '' NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE attempts (
    recipient_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    sender_id INTEGER NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT DEFAULT '0' NOT NULL,
    verdict TEXT DEFAULT '' NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    code TEXT DEFAULT '' NOT NULL,
    detail TEXT DEFAULT '' NOT NULL,
    PRIMARY KEY (recipient_id, number)
)
 WITHOUT ROWID;
CREATE INDEX ix_attempts_sender ON attempts (sender_id, started_at);
CREATE TABLE senders (
    id INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    provider TEXT NOT NULL,
    paused_until BIGINT DEFAULT '0' NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (fingerprint)
);
CREATE TABLE suppressions (
    phone TEXT NOT NULL,
    campaign_id INTEGER NOT NULL,
    source TEXT NOT NULL,
    added_at BIGINT NOT NULL,
    PRIMARY KEY (phone, campaign_id)
);
CREATE TABLE audits (
    id INTEGER NOT NULL,
    at BIGINT NOT NULL,
    campaign_id INTEGER NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (id)
);
