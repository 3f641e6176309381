// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc
import Synchronization

/// Starts programs with `posix_spawn`: in a session of their own, with exactly the descriptors we chose.
enum Spawn {
    /// Starts the program with both outputs going to `output`; the child is registered with ``ProcessTree`` before anyone can see it.
    static func start(_ request: ProcessRequest, output: Int32) throws(ProcessesError) -> pid_t {
        guard let program = request.arguments.first else {
            throw ProcessesError(.spawn, "cannot start a program without a name", systemError: EINVAL)
        }
        var started = program
        var arguments = request.arguments
        if let sandbox = request.sandbox {
            started = Sandbox.executable
            arguments = sandbox.arguments(arguments, executable: started)
        }
        // Lift every source above the numbers they are going to, so that none is overwritten before its turn.
        var lifted: [Int32] = []
        defer { for descriptor in lifted { close(descriptor) } }
        for source in [output] + request.descriptors {
            let copy = fcntl(source, F_DUPFD_CLOEXEC, 3 + Int32(request.descriptors.count) + 1)
            guard copy >= 0 else { throw ProcessesError(.file, "cannot prepare descriptors for \(program)") }
            lifted.append(copy)
        }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, lifted[0], 1)
        posix_spawn_file_actions_adddup2(&actions, lifted[0], 2)
        for (index, descriptor) in lifted.dropFirst().enumerated() {
            posix_spawn_file_actions_adddup2(&actions, descriptor, ProcessRequest.childDescriptor(index))
        }
        let firstClosed = ProcessRequest.childDescriptor(request.descriptors.count)
        _ = posix_spawn_file_actions_addclosefrom_np(&actions, firstClosed)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigdefault(&attributes, &all)
        let flags = clinux_spawn_setsid | Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETSIGDEF)
        posix_spawnattr_setflags(&attributes, flags)

        let environment = request.environment.map { "\($0.key)=\($0.value)" }
        var process: pid_t = 0
        let failure = withCStrings(arguments) { argv in
            withCStrings(environment) { envp in
                ProcessTree.children.withLock { children in
                    let failure = posix_spawnp(&process, started, &actions, &attributes, argv, envp)
                    if failure == 0 { children.insert(process) }
                    return failure
                }
            }
        }
        guard failure == 0 else { throw ProcessesError(.spawn, "cannot start \(program)", systemError: failure) }
        return process
    }

    private static func withCStrings<R>(
        _ strings: [String],
        _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> R
    ) -> R {
        let pointers = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: strings.count + 1)
        for (index, string) in strings.enumerated() { pointers[index] = strdup(string) }
        pointers[strings.count] = nil
        defer {
            for index in strings.indices { free(pointers[index]) }
            pointers.deallocate()
        }
        return body(pointers)
    }
}
