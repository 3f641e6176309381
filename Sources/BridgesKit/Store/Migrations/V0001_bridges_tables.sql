-- SPDX-License-Identifier: MPL-2.0

create table bridges.outbox (
    id bigint generated always as identity primary key,
    exchange text not null,
    routing_key text not null,
    cc text[] not null default '{}',
    body text not null,
    created timestamptz not null default now()
);
comment on table bridges.outbox is 'messages committed with a change and not yet confirmed by the broker';

create table bridges.deliveries (
    id          bigint generated always as identity primary key,
    source      text not null,
    delivery_id text not null,
    event       text not null,
    routing_key text not null,
    envelope    json not null,
    body        text not null,
    digest      bytea not null,
    received    timestamptz not null default now(),
    replays     int not null default 0,
    unique (source, delivery_id)
);
comment on table bridges.deliveries is
    'Webhooks that were accepted, each written in one transaction with its message. They recognise repetitions and can '
    'be sent again until they are swept. body is JSON text byte for byte; digest is the SHA-256 of the request''s body.';
create index deliveries_newest on bridges.deliveries (source, id desc);
create index deliveries_received on bridges.deliveries (received);

create table bridges.clock (
    singleton boolean primary key default true check (singleton),
    since     timestamptz not null
);
comment on table bridges.clock is 'The minute of the very first start; announcements begin with the one after it.';

create table bridges.minutes (
    minute timestamptz primary key
);
comment on table bridges.minutes is 'Minutes that were announced. Whoever inserts the row announces the minute.';

create table bridges.repositories (
    name         text primary key,
    url          text not null,
    last_push_id bigint,
    behind       int not null default 0,
    failures     int not null default 0,
    error        text,
    polled       timestamptz,
    next_poll    timestamptz not null default now()
);
comment on table bridges.repositories is
    'Mercurial repositories: pushes up to last_push_id have been announced; it is null before the first look. behind '
    'counts answers in a row with a smaller newest id. next_poll is also the end of the lease of who looks now.';
