-- SPDX-License-Identifier: MPL-2.0
-- How often messages that have not been dealt with were delivered again.
create table hooks.redeliveries (
    queue text not null,
    content_hash text not null,
    count integer not null default 1,
    last timestamptz not null default now(),
    primary key (queue, content_hash)
);
create index redeliveries_age on hooks.redeliveries (last);
