# Files that anybody may have written: what they say is checked before it is used.

const MAX_JSON = 64 * 2^20
# Objects and lists within one another; ours have ten at most. The parser calls itself for each, and Julia goes on from a stack that
# overflowed in a state that may be damaged.
const MAX_DEPTH = 100

"""
    parse_json(text)

Return the value of a JSON text.

# Throws
- `ArgumentError`: it is not JSON, or has objects and lists within one another without end.
"""
function parse_json(text::AbstractString)
    depth, quoted, escaped = 0, false, false
    for byte in codeunits(text)
        if quoted
            quoted = escaped || byte != UInt8('"')
            escaped = !escaped && byte == UInt8('\\')
        elseif byte == UInt8('"')
            quoted = true
        elseif byte in (UInt8('['), UInt8('{'))
            depth += 1
            depth <= MAX_DEPTH || throw(ArgumentError("there are more than $MAX_DEPTH objects within one another"))
        elseif byte in (UInt8(']'), UInt8('}'))
            depth -= 1
        end
    end
    return dispatch_barrier(JSON.parse, text)
end

"""
    json_object(path, advice = "")

Return the values of a JSON file by name.

# Throws
- `ArgumentError`: it is larger than 64 MiB, not JSON, or no object; the message ends with the advice.
"""
function json_object(path, advice="")
    wrong(what) = throw(ArgumentError("$path $what$advice."))
    filesize(path) <= MAX_JSON || wrong("is larger than $MAX_JSON bytes")
    values = try
        parse_json(read(path, String))
    catch err
        err isa InterruptException && rethrow()
        wrong("is not JSON")
    end
    values isa AbstractDict || wrong("is not a JSON object")
    return values
end

"""
    of_file(f, path)

Return `f()`, which uses what a file says.

# Throws
- `ArgumentError`: what is thrown where the file lacks a value, or has one of another type, names the file.
"""
function of_file(f, path)
    try
        return f()
    catch err
        err isa Union{InterruptException,ArgumentError,DimensionMismatch,SystemError,Base.IOError} && rethrow()
        reason = first(first(split(sprint(showerror, err), '\n')), 200)
        throw(ArgumentError("$path cannot be read: $reason."))
    end
end
