-- SPDX-License-Identifier: MPL-2.0
-- Notifications are delivered by a courier, with patience; some addresses want none.

alter table tcl.notifications add column address text collate "C" not null default '';
alter table tcl.notifications add column state text not null default 'done';
alter table tcl.notifications add column attempts integer not null default 0;
alter table tcl.notifications add column due timestamptz;
comment on column tcl.notifications.state is 'waiting, done, or failed after the last attempt.';
-- The courier starts at the earliest.
create index notifications_waiting on tcl.notifications (due) where state = 'waiting';
-- Counts what an address got lately.
create index notifications_by_address on tcl.notifications (kind, address, created);

create table tcl.denylist (
    kind text collate "C" not null,
    address text collate "C" not null,
    primary key (kind, address)
);
comment on table tcl.denylist is 'Addresses that get no notifications.';
