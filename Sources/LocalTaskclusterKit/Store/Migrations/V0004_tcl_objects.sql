-- SPDX-License-Identifier: MPL-2.0
-- The object service, and blobs that may be elsewhere than in our directory.

alter table tcl.blobs add column sha512 text;

create table tcl.objects (
    name text collate "C" primary key,
    project_id text not null,
    upload_id text not null,
    expires timestamptz not null,
    blob_id text collate "C" not null,
    content_type text not null default 'application/octet-stream',
    hashes json not null default '{}',
    finished boolean not null default false,
    created timestamptz not null
);
comment on table tcl.objects is 'Named, immutable content; readable once its upload is finished.';
-- An upload names only the blob.
create unique index objects_by_blob on tcl.objects (blob_id);
-- Lets the expiry sweeper find what may be deleted.
create index objects_by_expiry on tcl.objects (expires);
