-- SPDX-License-Identifier: MPL-2.0
-- A loan keeps the workers of its machine from taking tasks; the return ends that only if nobody has changed it since.

alter table roller.loans add column quarantined_until timestamptz;
