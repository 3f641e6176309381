// SPDX-License-Identifier: MPL-2.0

import JSON
import YAMLReader

/// Settles the values that depend on the product a worker serves.
enum ProductTables {
    private static let marker = "by-cot-product"

    /// Replaces tables by the product's value, and fills in what a products file or the built-in tables say.
    static func apply(to file: inout ConfigurationFile) {
        let product = file.values["cot_product"]?.string
        if let product, !isName(product) { file.fail("cot_product must be 1 to 64 letters, digits, dots, dashes, _") }
        let declared = product.flatMap { declarations(of: $0, &file) } ?? [:]
        for key in ConfigurationKey.all where key.kind == .byProduct {
            let given = file.values[key.name] ?? .null
            if let table = given[marker]?.object, given.object?.count == 1 {
                guard let product else {
                    file.set(key.name, .null)
                    continue
                }
                if let value = table[product] {
                    file.set(key.name, value)
                } else {
                    file.fail("\(key.name): no value for the product \(product)")
                }
            } else if given.isNull, let value = declared[key.name] {
                file.set(key.name, value)
            }
        }
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
        let known = Set(ConfigurationKey.all.filter { $0.kind == .byProduct }.map(\.name))
        let values = document[product]?.object
        for (key, _) in values ?? [:] where !known.contains(key) {
            file.fail("cot_products_file: \(product) has the unknown key \(key)")
        }
        return values
    }
}
