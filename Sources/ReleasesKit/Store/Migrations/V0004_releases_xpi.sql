-- What an extension's release is beyond a release; null for products.
alter table shipit_releases.releases add column xpi json;
