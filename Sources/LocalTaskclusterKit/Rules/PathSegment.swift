// SPDX-License-Identifier: MPL-2.0

/// Texts as one segment of a path or one value of a query.
enum PathSegment {
    /// Everything but letters, digits and `-._~` percent-encoded.
    static func encoded(_ text: String) -> String {
        var result: [UInt8] = []
        for byte in text.utf8 {
            let isPlain =
                switch byte {
                case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                    UInt8(ascii: "~"):
                    true
                default: false
                }
            if isPlain {
                result.append(byte)
            } else {
                result.append(UInt8(ascii: "%"))
                result += Hexadecimal.text([byte]).uppercased().utf8
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}
