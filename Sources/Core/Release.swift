// SPDX-License-Identifier: MPL-2.0

/// The release this source tree builds.
public enum Release {
    /// The version that `--version`, `/__version__` and outgoing `User-Agent` headers report.
    public static let version = "0.1.0"
}
