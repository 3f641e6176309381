-- Steps that only pretend, for trying pipelines out.
create table shipit_pipeline.mock_steps (
    uid text primary key,
    body json not null,
    duration_ms bigint not null,
    result text not null,
    garbage boolean not null,
    created timestamptz not null,
    cancelled timestamptz
);
