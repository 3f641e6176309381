-- The tables every step service has, in its own schema: {schema} is replaced by the schema's name.
create table {schema}.steps (
    id bigint generated always as identity primary key,
    uid text not null,
    incarnation integer not null,
    definition json not null,
    definition_sha256 bytea not null,
    state text not null,
    message text not null default '',
    attempt integer not null default 1,
    output json not null default '{}',
    info json not null default '{}',
    links json not null default '[]',
    labels jsonb not null default '{}',
    pipeline text,
    depth integer not null default 0,
    ancestors text[] not null default '{}',
    created_by text not null,
    created timestamptz(3) not null,
    started timestamptz,
    finished timestamptz,
    updated timestamptz not null,
    version bigint not null default 1,
    next_check_at timestamptz,
    check_failures integer not null default 0,
    lease_owner text,
    lease_until timestamptz,
    lease_epoch bigint not null default 0,
    last_sequence integer not null default 0,
    last_hash bytea not null,
    leaves_when_done boolean not null default false,
    deleted_at timestamptz
);
create unique index steps_uid on {schema}.steps (uid) where deleted_at is null;
create unique index steps_incarnation on {schema}.steps (uid, incarnation);
create index steps_created on {schema}.steps (created desc, id desc) where deleted_at is null;
create index steps_open on {schema}.steps (created desc, id desc)
    where deleted_at is null and state in ('pending', 'starting', 'running', 'stopping');
create index steps_due on {schema}.steps (next_check_at) where next_check_at is not null;
create index steps_pipeline on {schema}.steps (pipeline) where pipeline is not null and deleted_at is null;
create index steps_labels on {schema}.steps using gin (labels jsonb_path_ops) where deleted_at is null;

create table {schema}.events (
    step_id bigint not null references {schema}.steps (id),
    sequence integer not null,
    at timestamptz not null,
    actor text not null,
    kind text not null,
    subject text,
    data json not null,
    previous_hash bytea not null,
    hash bytea not null,
    primary key (step_id, sequence)
);
create function {schema}.refuse_change() returns trigger language plpgsql as
    $$ begin raise exception 'the audit of steps is append-only'; end $$;
create trigger events_are_append_only before update or delete or truncate on {schema}.events
    for each statement execute function {schema}.refuse_change();

create table {schema}.replies (
    key text not null,
    client text not null,
    request_sha256 bytea not null,
    reply json not null,
    created timestamptz not null default now(),
    primary key (client, key)
);
create index replies_created on {schema}.replies (created);

create table {schema}.outbox (
    id bigint generated always as identity primary key,
    exchange text not null,
    routing_key text not null,
    cc text[] not null default '{}',
    body text not null,
    created timestamptz not null default now()
);
comment on table {schema}.outbox is 'messages committed with a change and not yet confirmed by the broker';
