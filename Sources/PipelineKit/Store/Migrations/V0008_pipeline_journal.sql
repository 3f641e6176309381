-- What is decided beside single pipelines: freezes, templates, locks, switches of products. Append-only, as their audits.
create table shipit_pipeline.journal (
    sequence integer primary key,
    at timestamptz not null,
    actor text not null,
    kind text not null,
    subject text,
    data json not null,
    previous_hash bytea not null,
    hash bytea not null
);
create trigger journal_is_append_only before update or delete or truncate on shipit_pipeline.journal
    for each statement execute function shipit_pipeline.refuse_change();
