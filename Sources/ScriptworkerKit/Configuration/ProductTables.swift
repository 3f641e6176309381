// SPDX-License-Identifier: MPL-2.0

import JSON
import YAMLReader

/// Settles the values that depend on the product a worker serves.
enum ProductTables {
    private static let marker = "by-cot-product"

    /// Replaces tables by the product's value, and fills in what a products file or the built-in tables say; returns the keys that have
    /// a value of the file's or the product's own.
    static func apply(to file: inout ConfigurationFile, given: Set<String>) -> Set<String> {
        let product = file.values["cot_product"]?.string
        if let product, !isName(product) { file.fail("cot_product must be 1 to 64 letters, digits, dots, dashes, _") }
        let declared = product.flatMap { declarations(of: $0, &file) } ?? [:]
        var settled = given
        for key in ConfigurationKey.all where ConfigurationKey.tabled.contains(key.name) {
            let value = file.values[key.name] ?? .null
            if let table = value[marker]?.object, value.object?.count == 1 {
                guard let product else {
                    file.set(key.name, key.standard)
                    settled.remove(key.name)
                    continue
                }
                if let value = table[product] {
                    file.set(key.name, value)
                } else {
                    file.fail("\(key.name): no value for the product \(product)")
                }
            } else if value.isNull || !given.contains(key.name), let value = declared[key.name] {
                file.set(key.name, value)
                settled.insert(key.name)
            }
        }
        return settled
    }

    private static func isName(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
    }

    /// What is declared about a product: in the operator's file if there is one, else among those we know.
    private static func declarations(of product: String, _ file: inout ConfigurationFile) -> JSONObject? {
        let path = file.text("cot_products_file")
        let document: JSONValue
        do {
            document = try YAML.value(of: path.isEmpty ? BuiltInProducts.yaml : FileText.read(path))
        } catch {
            file.fail("cot_products_file: \(path) cannot be read: \(error)")
            return nil
        }
        let values = document[product]?.object
        for (key, _) in values ?? [:] where !ConfigurationKey.declarable.contains(key) {
            file.fail("cot_products_file: \(product) has the unknown key \(key)")
        }
        return values
    }
}
