create table shipit_releases.releases (
    id bigint generated always as identity primary key,
    name text not null unique,
    product text not null,
    product_key text,
    branch text not null,
    version text not null,
    build_number integer not null,
    revision text not null,
    repo_url text not null,
    release_eta text not null,
    decision_task text not null,
    input json not null,
    allows_skipping boolean not null,
    status text not null default 'scheduled',
    created_by text not null,
    created timestamptz not null,
    completed timestamptz
);
create index releases_status on shipit_releases.releases (status, product);

create table shipit_releases.phases (
    release_id bigint not null references shipit_releases.releases (id),
    position integer not null,
    name text not null,
    wanted timestamptz,
    wanted_by text,
    skipped boolean not null default false,
    started boolean not null default false,
    primary key (release_id, name)
);
create index phases_waiting on shipit_releases.phases (release_id) where wanted is not null and not started and not skipped;

create table shipit_releases.signoffs (
    uid text primary key,
    release_id bigint not null references shipit_releases.releases (id),
    phase text not null,
    position integer not null,
    name text not null,
    description text not null,
    permissions text not null,
    signed timestamptz,
    subject text,
    signed_by text
);
create index signoffs_phase on shipit_releases.signoffs (release_id, phase, position);

create table shipit_releases.disabled_products (
    product text not null,
    branch text not null,
    created_by text not null,
    created timestamptz not null default now(),
    primary key (product, branch)
);

create table shipit_releases.versions (
    product text not null,
    channel text not null,
    version text not null,
    changed_by text not null,
    changed timestamptz not null default now(),
    primary key (product, channel)
);

create table shipit_releases.nightly_releases (
    product text not null,
    channel text not null,
    buildid text not null,
    version text not null,
    locales json not null,
    created timestamptz not null default now(),
    primary key (product, channel, buildid)
);

create table shipit_releases.submissions (
    name text primary key,
    product text not null,
    fields json not null,
    ready boolean not null default false,
    complete boolean not null default false,
    status text not null default '',
    submitter text not null,
    submitted timestamptz not null,
    shipped timestamptz,
    starter text,
    graph text,
    pipeline_pending boolean not null default false,
    pipeline_problem text
);
create index submissions_waiting on shipit_releases.submissions (name) where pipeline_pending;
create index submissions_ready on shipit_releases.submissions (name) where ready and not complete;
