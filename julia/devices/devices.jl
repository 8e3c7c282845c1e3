# Devices: which there are, what moves to them, and the arrays that one step leaves to the next there. What only one vendor's
# libraries can do, such as convolutions by cuDNN, is a method of an extension (ext/).

const DeviceArray = AbstractGPUArray

# By the name that a user gives it: the packages that must be there, and MLDataDevices' type.
const DEVICES = Dict(
    "cuda" => (packages=["CUDA", "cuDNN"], type=CUDADevice),
    "amdgpu" => (packages=["AMDGPU"], type=AMDGPUDevice),
    "metal" => (packages=["Metal"], type=MetalDevice),
)

"""
    open_device(name)

Return the device of a name, loading the packages that it needs.

# Arguments
- `name`: `"cpu"`, `"cuda"`, `"amdgpu"` or `"metal"`; or a device of MLDataDevices, such as `gpu_device()`, which is returned.

# Returns
- a device of MLDataDevices

# Throws
- `ArgumentError`: an unknown name, a package that is not installed, or no working device of that kind; the message says which.
"""
open_device(device::AbstractDevice) = device

function open_device(name::AbstractString)
    name == "cpu" && return CPUDevice()
    haskey(DEVICES, name) || throw(unknown_name("device", name, ["cpu"; sort!(collect(keys(DEVICES)))]))
    (; packages, type) = DEVICES[name]
    for package in packages
        id = Base.identify_package(package)
        if id === nothing
            throw(ArgumentError("`device` is \"$name\", which needs the Julia package $package, and the project " *
                                "$(Base.active_project()) does not have it. Run `photoflux doctor --add $name`, or in Julia " *
                                "`pkg> add $(join(packages, ' '))`."))
        end
        Base.require(id)
    end
    return Base.invokelatest(working_device, type, name)
end

function working_device(type, name)
    MLDataDevices.functional(type) && return type()
    throw(ArgumentError("`device` is \"$name\", and there is no such device that works here: $(why_not(Val(Symbol(name)))). " *
                        "Take \"cpu\", or another machine."))
end

# Why a device does not work, in words; extensions know more.
why_not(kind) = "its package finds none"

# The name of a device as a run has it, and the card's own in words.
device_name(device::AbstractDevice) = lowercase(replace(string(nameof(typeof(device))), r"Device$" => ""))
card_name(device::AbstractDevice) = device_name(device)

"""
    on_device(device, model)

Return a model with its arrays on a device; on the CPU, where it has them, the same model.
"""
on_device(::CPUDevice, model) = on_host(model)
on_device(device::AbstractDevice, model) = device(model)

"""
    on_host(x)

Return an array or a model in the computer's memory; the same one if it is there.
"""
on_host(x::Array) = x
on_host(x::DeviceArray) = Array(x)
on_host(model) = is_on_device(model) ? Flux.fmap(x -> x isa DeviceArray ? Array(x) : x, model) : model

# An array on a device; on the CPU the same one.
on_device_array(::CPUDevice, x) = x
on_device_array(device, x) = device(x)

# The device that has a model's arrays, and whether it is none but the CPU.
device_of(model) = get_device(first(Flux.trainables(model)))
is_on_device(model) = any(array -> array isa DeviceArray, Flux.trainables(model))

# f(), with what a fit needs to be set: matrix products in TF32 or not.
with_precision(f, device, tf32) = f()

# What a device can hold of a dataset beside a fit, in bytes.
room_on(device) = 2^31

# Gives back memory that nobody uses any more.
tidy_up(device) = GC.gc()

"""
    DeviceBuffers(device; tf32 = false)

Arrays on a device that one training step leaves to the next, as [`Buffers`](@ref) are in the computer's memory.

# Arguments
- `device`: of MLDataDevices.
- `tf32::Bool`: whether products may round their factors to 10 bits, where the device can; otherwise all is Float32.
"""
mutable struct DeviceBuffers{D,F<:AbstractVector{Float32},B<:AbstractVector{UInt8},I<:AbstractVector{Int32}}
    const device::D
    const tf32::Bool
    const floats::Dict{Tuple{Symbol,Symbol},F}
    const bytes::Dict{Tuple{Symbol,Symbol},B}
    const indices::Dict{Tuple{Symbol,Symbol},I}
    const none::Tuple{F,B,I}
    const staged::Dict{Symbol,Any}                    # arrays of the host, from which images are copied
    resident::Any                               # the images of the dataset whose batches are made; nothing: they do not fit
    const drawn::Dict{Symbol,SplitMix}                # the generator of a dropout layer, as it was before the batch
    const turns::Dict{Symbol,Symbol}                  # of two arrays that are used in turn, the one that was given last
end

function DeviceBuffers(device; tf32::Bool=false)
    none = (device(zeros(Float32, 1)), device(zeros(UInt8, 1)), device(zeros(Int32, 1)))
    dicts = map(array -> Dict{Tuple{Symbol,Symbol},typeof(array)}(), none)
    return DeviceBuffers(device, tf32, dicts..., none, Dict{Symbol,Any}(), nothing, Dict{Symbol,SplitMix}(), Dict{Symbol,Symbol}())
end

function at_least_on(arrays, none, key, n)
    array = get(arrays, key, none)
    return length(array) < n ? (arrays[key] = similar(none, n)) : array
end

shaped(array, dims) = reshape(view(array, 1:prod(dims)), dims)

Kernels.buffer(b::DeviceBuffers, name::Symbol, role::Symbol, dims...) =
    shaped(at_least_on(b.floats, b.none[1], (name, role), prod(dims)), dims)
Kernels.byte_buffer(b::DeviceBuffers, name::Symbol, role::Symbol, dims...) =
    shaped(at_least_on(b.bytes, b.none[2], (name, role), prod(dims)), dims)
index_buffer(b::DeviceBuffers, name::Symbol, role::Symbol, dims...) =
    shaped(at_least_on(b.indices, b.none[3], (name, role), prod(dims)), dims)

in_turn!(b::DeviceBuffers, name) = b.turns[name] = get(b.turns, name, :second) === :first ? :second : :first

# As on a CPU, two arrays in turn.
Kernels.gradient_buffer(b::DeviceBuffers, dy, dims::Dims) = buffer(b, :gradient, in_turn!(b, :gradient), dims...)

# What a fit or the last call of `with_device_buffers` left, unless the collector took it meanwhile.
const SPARE_ON_DEVICE = Ref(WeakRef(nothing))
const SPARE_ON_DEVICE_LOCK = ReentrantLock()

# f(buffers) in Float32, with the arrays of a fit between two epochs, or of an earlier call, if nobody uses them.
function with_device_buffers(f, device)
    kept = @lock SPARE_ON_DEVICE_LOCK begin
        value = SPARE_ON_DEVICE[].value
        SPARE_ON_DEVICE[] = WeakRef(nothing)
        value
    end
    buffers = kept !== nothing && kept.device == device ? kept : DeviceBuffers(device)
    try
        return dispatch_barrier(f, buffers)
    finally
        keep_spare!(buffers)
    end
end

keep_spare!(buffers) = @lock SPARE_ON_DEVICE_LOCK SPARE_ON_DEVICE[] = WeakRef(buffers)

# The buffers of a fit: where the model is.
buffers_of(model, data, settings) = is_on_device(model) ? device_buffers(model, data, settings) : Buffers()

function device_buffers(model, data, settings)
    buffers = DeviceBuffers(device_of(model); tf32=get(settings, :tf32, false))
    buffers.tf32 || keep_spare!(buffers)
    return keep_images!(buffers, data.images)
end

# Puts the images of a dataset on the device where they fit.
function keep_images!(buffers::DeviceBuffers, images; room=room_on(buffers.device))
    buffers.resident = sizeof(images) <= room ? buffers.device(images) : nothing
    return buffers
end
