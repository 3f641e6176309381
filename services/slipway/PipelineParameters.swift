// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON

extension PipelineCommand {
    struct Parameters: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Replace the parameters of a step that has not been started.",
            discussion: """
                Pause the pipeline before if the step could start meanwhile. For a step that has failed, let it be tried again \
                with slipway pipeline retry --paused.

                Examples:
                  slipway pipeline parameters firefox-130.0b3-build1 publish publish.json
                """
        )

        @OptionGroup var pipeline: PipelineOptions
        @Argument(help: "The step.")
        var step: String
        @Argument(help: "A file with the parameters, - for standard input.")
        var file: String

        func run() async throws {
            let answer = try await PipelineCommand.session().call(
                "PUT",
                [pipeline.uid, "steps", step, "parameters"],
                body: Bytes.json(file)
            )
            pipeline.output.print(answer.json, text: PipelineCommand.text(answer.json))
        }
    }
}
