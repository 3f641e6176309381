-- SPDX-License-Identifier: MPL-2.0

-- Jobs that take locks and jobs that take none are claimed by different statements: neither may have to read past the
-- other's.
create index jobs_acting on roller.jobs (pool, priority desc, created)
    where state in ('queued', 'waiting') and not (is_read_only or machine is null or dry_run);
create index jobs_looking on roller.jobs (pool, priority desc, created)
    where state in ('queued', 'waiting') and (is_read_only or machine is null or dry_run);
drop index roller.jobs_claimable;
