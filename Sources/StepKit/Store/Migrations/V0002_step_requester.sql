-- On whose behalf a step was made, where its creator says so: {schema} is replaced by the schema's name.
alter table {schema}.steps add column requester text;
