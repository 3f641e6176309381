create table shipit_releases.merges (
    id bigint generated always as identity primary key,
    product text not null,
    behavior text not null,
    revision text not null,
    dry_run boolean not null default true,
    version text not null,
    commit_message text not null,
    commit_author text not null,
    repo text not null,
    pretty_name text not null,
    project text not null,
    status text not null default 'pending',
    created_by text not null,
    created timestamptz not null default now(),
    completed timestamptz
);
create index merges_product on shipit_releases.merges (product, created desc);
