struct PackageResources {
static let V0001_releases_sql: [UInt8] = []
static let V0002_releases_merges_sql: [UInt8] = []
}
