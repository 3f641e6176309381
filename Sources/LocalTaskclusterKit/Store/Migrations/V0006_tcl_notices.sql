-- SPDX-License-Identifier: MPL-2.0
-- What tasks want somebody to be told, and tables that turn over fast.

create table tcl.notices (
    id bigint generated always as identity primary key,
    task_id text collate "C" not null,
    event text not null,
    status json not null,
    created timestamptz not null default now()
);
comment on table tcl.notices is
    'Events of tasks whose routes ask for notifications; written with the event, gone once the notifications are.';

-- Rows come and go here all the time. Dead ones are cleared by their number, not by their share of what was once a
-- large backlog; otherwise those who look for the oldest row have to step over them.
alter table tcl.pending set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
alter table tcl.claims set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
alter table tcl.resolutions set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
alter table tcl.outbox set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
