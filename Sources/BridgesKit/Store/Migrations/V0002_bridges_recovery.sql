-- SPDX-License-Identifier: MPL-2.0

create table bridges.recoveries (
    hook      text primary key,
    source    text not null,
    since     timestamptz not null default now(),
    failures  int not null default 0,
    error     text,
    looked    timestamptz,
    next_look timestamptz not null default now()
);
comment on table bridges.recoveries is
    'Webhooks at GitHub whose lists of deliveries are compared with ours. What GitHub sent before since is accounted for. '
    'next_look is also the end of the lease of who looks now.';

create table bridges.requested (
    source      text not null,
    delivery_id text not null,
    requests    int not null default 1,
    requested   timestamptz not null default now(),
    primary key (source, delivery_id)
);
comment on table bridges.requested is 'Deliveries that never arrived and were asked for again, and how often.';
create index requested_age on bridges.requested (requested);
