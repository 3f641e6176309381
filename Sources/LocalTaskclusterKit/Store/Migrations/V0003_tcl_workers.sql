-- SPDX-License-Identifier: MPL-2.0
-- What old registration tools declare about provisioners, and what sweepers need to find expired records.

create table tcl.provisioners (
    provisioner_id text collate "C" primary key,
    description text not null default '',
    stability text not null default 'experimental',
    actions json not null default '[]',
    expires timestamptz not null,
    last_date_active timestamptz not null
);
comment on table tcl.provisioners is
    'Declared facts about provisioners. Their existence and activity also follow from the task queues.';

-- Lets the expiry sweeper find what may be deleted.
create index queues_by_expiry on tcl.queues (expires);
create index workers_by_expiry on tcl.workers (expires);
create index indexed_tasks_by_expiry on tcl.indexed_tasks (expires);
create index namespaces_by_expiry on tcl.namespaces (expires);
create index purges_by_age on tcl.purges (before);
create index notifications_by_age on tcl.notifications (created);
-- Drops the edges of a forgotten task without looking at every edge.
create index edges_by_dependent on tcl.edges (dependent);
