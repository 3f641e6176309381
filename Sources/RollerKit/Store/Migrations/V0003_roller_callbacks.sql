-- SPDX-License-Identifier: MPL-2.0
-- An installation tells that it has ended. Whoever may tell was given a token, of which only the hash is kept.

create table roller.callbacks (
    job        uuid primary key references roller.jobs on delete cascade,
    token_hash bytea not null,
    created    timestamptz not null default now(),
    called     timestamptz,
    source_ip  text,
    ok         boolean,
    message    text
);
