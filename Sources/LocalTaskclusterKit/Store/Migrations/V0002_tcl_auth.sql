-- SPDX-License-Identifier: MPL-2.0
-- Auth in full: sealed access tokens, sealed secrets with named keys, and a record of who changed what.

alter table tcl.clients add column token_key text;
alter table tcl.clients add column sealed_token bytea;
comment on column tcl.clients.token_key is
    'The key that sealed_token is sealed with; null means that access_token still holds the token itself.';
-- Lets the expiry sweeper find clients that want to be deleted.
create index clients_by_expiry on tcl.clients (expires) where delete_on_expiration;

alter table tcl.secrets add column key_id text not null default 'derived';
-- Finds what is still sealed with an old key.
create index secrets_by_key on tcl.secrets (key_id, name);
-- Lets the expiry sweeper find what may be deleted.
create index secrets_by_expiry on tcl.secrets (expires);

-- Counts the changes of clients and roles; the row's lock makes those changes come one after the other.
insert into tcl.keys (name, value) values ('directory', '1');

create table tcl.audit (
    id bigint generated always as identity primary key,
    entity_type text not null,
    entity_id text collate "C" not null,
    client_id text collate "C" not null,
    action text not null,
    created timestamptz not null
);
comment on table tcl.audit is 'Who changed which client, role or secret and when; never what the change was.';
create index audit_by_entity on tcl.audit (entity_type, entity_id, id);
create index audit_by_client on tcl.audit (client_id, id);
create index audit_by_age on tcl.audit (created);
