// SPDX-License-Identifier: MPL-2.0

import Glibc
import Testing
import WorkerKit

@Suite(.timeLimit(.minutes(5))) struct FilesTests {
    private func file(_ bytes: [UInt8]) throws -> OpenFile {
        let file = try OpenFile.temporary(in: "/tmp")
        try bytes.withUnsafeBytes { try file.write($0) }
        return file
    }

    private func bytes(_ file: OpenFile) throws -> [UInt8] {
        var bytes: [UInt8] = []
        try file.forEachPiece { bytes.append(contentsOf: $0) }
        return bytes
    }

    @Test func `S47: only the listed types are compressed, whatever the name says`() {
        let names = ["a.json", "a.log", "a.tar.gz", "a.tgz", "a.gz", "a.xz", "a.bin", "dir/b.xml", "KEY"]
        let compressed = names.map { ContentType(forName: $0).isCompressed }
        #expect(compressed == [true, true, false, false, false, false, false, true, false])
    }

    @Test func `S78: what was compressed comes back, garbage behind it is ignored, a cut is an error`() throws {
        let original = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 7) }
        let packed = try OpenFile.temporary(in: "/tmp")
        try Gzip.compress(file(original), to: packed)
        let text = try bytes(packed)
        for tail in [[], Array("2026 INFO plain text\n".utf8)] {
            let target = try OpenFile.temporary(in: "/tmp")
            try Gzip.decompress(file(text + tail), to: target)
            #expect(try bytes(target) == original)
        }
        let cut = try file(Array(text.dropLast(100)))
        #expect(throws: FileError.self) { try Gzip.decompress(cut, to: OpenFile.temporary(in: "/tmp")) }
    }

    @Test func `S54: links that lead out, lead nowhere, and pipes are left out; a link inside is a copy`() throws {
        let top = "/tmp/slipway-walk-\(UInt64.random(in: 0 ... .max))"
        for path in [top, "\(top)/art", "\(top)/work"] { mkdir(path, 0o755) }
        close(open("\(top)/work/input", O_CREAT | O_WRONLY | O_CLOEXEC, 0o644))
        close(open("\(top)/art/a b+c", O_CREAT | O_WRONLY | O_CLOEXEC, 0o644))
        close(open("\(top)/art/line\nend", O_CREAT | O_WRONLY | O_CLOEXEC, 0o644))
        symlink("/etc/passwd", "\(top)/art/out")
        symlink("nothing", "\(top)/art/dangling")
        symlink("\(top)/work/input", "\(top)/art/inside")
        mkfifo("\(top)/art/pipe", 0o644)
        let walk = try ArtifactWalk("\(top)/art", linksMayLeadInto: ["\(top)/work"])
        #expect(walk.files.map(\.name) == ["a b+c", "inside"])
        #expect(walk.problems.count == 4)
    }
}
