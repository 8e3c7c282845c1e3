# Files that are written atomically: a temporary name beside the place, fsync, rename; and who clears up.

# Writes atomically: a temporary file is renamed to `path` when it is complete and on the disk. What a process that was killed has left in
# the folder is removed before.
function replace_file(write_to, path)
    folder = dirname(abspath(path))
    sweep(folder)
    temporary = joinpath(folder, temporary_name(basename(path)))
    try
        open(temporary, "w") do io
            write_to(io)
            sync(io)
        end
        # `mv` removes what is there before it renames, and a process that was killed then would have taken both.
        failed = ccall(:jl_fs_rename, Int32, (Cstring, Cstring), temporary, path)
        failed < 0 && Base.uv_error("rename to $path", failed)
        sync_folder(folder)
    finally
        rm(temporary; force=true)
    end
    return path
end

# Has the system write a file to the disk; some file systems report only here that the disk is full.
function sync(io)
    flush(io)
    failed = Sys.iswindows() ? ccall(:_commit, Cint, (Cint,), fd(io)) : ccall(:fsync, Cint, (Cint,), fd(io))
    Base.systemerror("fsync", failed != 0)
end

# The same for the names in a folder, where the system can.
function sync_folder(folder)
    Sys.iswindows() && return nothing
    file = Base.Filesystem.open(folder, Base.Filesystem.JL_O_RDONLY)
    ccall(:fsync, Cint, (Cint,), fd(file))
    close(file)
    return nothing
end

# Of a temporary name: the file's own, the machine, the process and its start, as Python's photoflux.system.atomic has them too, so that
# each of the two removes what a process of the other has left.
const TEMPORARY = r"^\.(?<name>.+)\.(?<machine>[0-9a-f]{8})-(?<pid>\d+)-(?<start>\d+)-\d+\.tmp(\.\w+)?$"s
const LONGEST_NAME = 150  # bytes of a file's name that a temporary one repeats
const TEMPORARIES = Threads.Atomic{Int}(0)

temporary_name(name) = string('.', shortened(name), '.', machine(), '-', getpid(), '-', started(getpid()), '-', Threads.atomic_add!(TEMPORARIES, 1), ".tmp")

function shortened(name)
    ncodeunits(name) <= LONGEST_NAME && return name
    return string(first(name, LONGEST_NAME ÷ 4), '~', first(bytes2hex(sha256(name)), 8))
end

# 8 hexadecimal digits for the machine, or the container, in which process ids mean something.
machine() = first(bytes2hex(sha256("$(gethostname()) $(stat("/proc/self/ns/pid").inode)")), 8)

# What the system says of a process after its name; empty where it says nothing.
function process_fields(pid)
    text = try
        read("/proc/$pid/stat", String)
    catch err
        err isa SystemError || rethrow()
        return SubString{String}[]
    end
    return split(last(rsplit(text, ')'; limit=2)))
end

# When a process started, in ticks; 0 where that cannot be known.
started(pid) = (fields = process_fields(pid); isempty(fields) ? 0 : parse(Int, fields[20]))

# Whether a process of this machine still runs; another one with its number is not it.
function is_alive(pid, start)
    Sys.iswindows() && return true
    fields = process_fields(pid)
    isempty(fields) && return !isdir("/proc/self") && ccall(:kill, Cint, (Cint, Cint), pid, 0) == 0
    return !(fields[1] in ("Z", "X")) && start in (0, parse(Int, fields[20]))
end

# Removes the temporary files of processes of this machine that are gone, as far as the folder can be read.
function sweep(folder)
    names = try
        readdir(folder)
    catch err
        err isa Base.IOError || rethrow()
        return nothing
    end
    for name in names
        found = match(TEMPORARY, name)
        found === nothing || found["machine"] != machine() || is_alive(parse(Int, found["pid"]), parse(Int, found["start"])) ||
            rm(joinpath(folder, name); force=true, recursive=true)
    end
    return nothing
end
