# A training step on a device, written out for the layers that our models have: what `step.jl` is for a CPU. Any other chain goes
# through Zygote and Optimisers.

has_device_kernel(layer) = false
has_device_kernel(::Union{Rescale,Standardise,Convolution{<:Rectifier},Dense{<:Rectifier},typeof(maxpool2),typeof(Flux.flatten),Dropout{<:Real,Colon}}) = true

has_device_path(model::Chain, x) = x isa DeviceArray{Float32,4} && all(has_device_kernel, model.layers)

can_pool(layer::Convolution{<:Rectifier,<:DeviceArray}) = size(layer.weight)[1:2] == (3, 3) && layer.stride == (1, 1)

function forward!(layer::Rescale, x, buffers::DeviceBuffers, name)
    y = buffer(buffers, name, :y, size(x)...)
    vec(y) .= vec(x) .* layer.scale
    return y
end

function forward!(layer::Standardise, x, buffers::DeviceBuffers, name)
    y = buffer(buffers, name, :y, size(x)...)
    return y .= (x .- reshape(layer.mean, 1, 1, :)) ./ reshape(layer.deviation, 1, 1, :)
end

# Convolutions are the device's own, through NNlib unless an extension knows better. Each fills its first argument.
convolution!(y, x, layer, buffers) = NNlib.conv!(y, x, layer.weight, dims_of(layer, x))
filter_gradient!(dw, x, dy, layer, buffers) = NNlib.∇conv_filter!(dw, x, dy, dims_of(layer, x))
data_gradient!(dx, dy, layer, buffers) = NNlib.∇conv_data!(dx, dy, layer.weight, dims_of(layer, dx))

function activated_convolution!(y, x, layer, buffers)
    convolution!(y, x, layer, buffers)
    launch!(activate_kernel!, y, length(y), y, layer.bias, layer.σ === relu, size(y, 1) * size(y, 2))
    return y
end

function forward!(layer::Convolution, x, buffers::DeviceBuffers, name)
    return activated_convolution!(buffer(buffers, name, :y, output_size(layer, x)...), x, layer, buffers)
end

output_size(layer, x) = (NNlib.output_size(dims_of(layer, x))..., size(layer.weight, 4), size(x, 4))

function backward!(layer::Convolution, x, y, dy, buffers::DeviceBuffers, name, wanted, sink)
    layer.σ === relu && launch!(mask_kernel!, dy, length(dy), dy, y)
    dw = filter_gradient!(buffer(buffers, name, :dw, size(layer.weight)...), x, dy, layer, buffers)
    db = channel_sums!(buffer(buffers, name, :db, length(layer.bias)), dy, buffers)
    # Before the weights change.
    dx = wanted ? data_gradient!(gradient_buffer(buffers, dy, size(x)), dy, layer, buffers) : nothing
    emit!(sink, name, :weight, layer.weight, dw)
    emit!(sink, name, :bias, layer.bias, db)
    return dx
end

# The sums over places and images, by the device's matrix products: a sum over some dimensions is slower.
function channel_sums!(sums, x, buffers)
    places, channels, images = size(x, 1) * size(x, 2), size(x, 3), size(x, 4)
    planes = buffer(buffers, :sums, :planes, channels * images)
    mul!(planes, transpose(reshape(x, places, :)), ones_on(buffers, places))
    return mul!(sums, reshape(planes, channels, images), ones_on(buffers, images))
end

function ones_on(buffers, n)
    known = get(buffers.floats, (:sums, :ones), nothing)
    vector = buffer(buffers, :sums, :ones, n)
    (known === nothing || length(known) < n) && fill!(vector, 1)
    return vector
end

# What is pooled is made without bias and activation, which are added where it is pooled.
function forward!((; convolution)::PooledConvolution, x, buffers::DeviceBuffers, name)
    # It is read once: the next batch may have its place.
    made = convolution!(buffer(buffers, name, :made, output_size(convolution, x)...), x, convolution, buffers)
    y = buffer(buffers, name, :y, pooled_size(made)...)
    return pool_on_device!(y, byte_buffer(buffers, name, :chosen, size(y)...), made, convolution.bias, convolution.σ === relu)
end

function backward!((; convolution)::PooledConvolution, x, y, dy, buffers::DeviceBuffers, name, wanted, sink)
    chosen = byte_buffer(buffers, name, :chosen, size(y)...)
    convolution.σ === relu && launch!(mask_kernel!, dy, length(dy), dy, y)
    dw = pooled_filter_gradient!(buffer(buffers, name, :dw, size(convolution.weight)...), x, dy, chosen, buffers)
    db = channel_sums!(buffer(buffers, name, :db, length(convolution.bias)), dy, buffers)
    dx = nothing
    if wanted
        # In the place of the convolution's output, which nobody reads again.
        spread = unpool_on_device!(buffer(buffers, name, :made, output_size(convolution, x)...), dy, chosen)
        dx = data_gradient!(gradient_buffer(buffers, dy, size(x)), spread, convolution, buffers)
    end
    emit!(sink, name, :weight, convolution.weight, dw)
    emit!(sink, name, :bias, convolution.bias, db)
    return dx
end

# Images whose products one thread sums.
const IMAGES_OF_THREAD = 64

function pooled_filter_gradient!(dw, x, dy, chosen, buffers)
    (width, height, inputs, images), (across, down, outputs) = size(x), size(dy)
    windows, groups = across * down, cld(images, IMAGES_OF_THREAD)
    isempty(dy) && return fill!(dw, 0)
    sums = buffer(buffers, :pooled, :sums, windows * groups, length(dw))
    launch!(pooled_filter_kernel!, sums, windows * groups * inputs * outputs, sums, x, dy, chosen, width, height, across, windows, images,
        cld(images, groups), groups, inputs, outputs)
    mul!(vec(dw), transpose(sums), ones_on(buffers, windows * groups))
    return dw
end

function pool_on_device!(y, chosen, x, bias, relu)
    launch!(pool_kernel!, y, length(y), y, chosen, x, bias, relu, size(x, 1), size(x, 2))
    return y
end

function unpool_on_device!(dx, dy, chosen)
    launch!(unpool_kernel!, dx, length(dx), dx, dy, chosen, size(dx, 1), size(dx, 2))
    return dx
end

forward!(::typeof(maxpool2), x, buffers::DeviceBuffers, name) =
    pool_on_device!(buffer(buffers, name, :y, pooled_size(x)...), byte_buffer(buffers, name, :chosen, pooled_size(x)...), x, nothing, false)

function backward!(::typeof(maxpool2), x, y, dy, buffers::DeviceBuffers, name, wanted, sink)
    wanted || return nothing
    return unpool_on_device!(gradient_buffer(buffers, dy, size(x)), dy, byte_buffer(buffers, name, :chosen, size(y)...))
end

# For Zygote.
function pooled(x::DeviceArray{T,4}) where {T<:AbstractFloat}
    y, chosen = similar(x, pooled_size(x)), similar(x, UInt8, pooled_size(x))
    return pool_on_device!(y, chosen, x, nothing, false), chosen
end

unpooled(x::DeviceArray, dy, chosen) = unpool_on_device!(similar(x), dy, chosen)

# The numbers of a CPU's `rand!`, made in the kernel, once more on the way back.
function forward!(layer::Dropout, x, buffers::DeviceBuffers, name)
    layer.active === false && return x
    buffers.drawn[name] = SplitMix(layer.rng.state, layer.rng.step)
    layer.rng.state += cld(length(x), 2) % UInt64 * layer.rng.step
    return drop_on_device!(buffer(buffers, name, :y, size(x)...), x, buffers.drawn[name], layer.p)
end

function backward!(layer::Dropout, x, y, dy, buffers::DeviceBuffers, name, wanted, sink)
    wanted || return nothing
    layer.active === false && return dy
    return drop_on_device!(dy, dy, buffers.drawn[name], layer.p)
end

function drop_on_device!(y, x, drawn, p)
    launch!(drop_kernel!, y, length(y), y, x, drawn.state, drawn.step, Float32(p), Float32(1 / (1 - p)))
    return y
end

function forward!(layer::Dense, x, buffers::DeviceBuffers, name)
    y = mul!(buffer(buffers, name, :y, size(layer.weight, 1), size(x, 2)), layer.weight, x)
    return y .= layer.σ.(y .+ layer.bias)
end

function backward!(layer::Dense, x, y, dy, buffers::DeviceBuffers, name, wanted, sink)
    layer.σ === relu && launch!(mask_kernel!, dy, length(dy), dy, y)
    dw = mul!(buffer(buffers, name, :dw, size(layer.weight)...), dy, transpose(x))
    db = mul!(buffer(buffers, name, :db, length(layer.bias)), dy, ones_on(buffers, size(dy, 2)))
    dx = wanted ? mul!(gradient_buffer(buffers, dy, size(x)), transpose(layer.weight), dy) : nothing
    emit!(sink, name, :weight, layer.weight, dw)
    emit!(sink, name, :bias, layer.bias, db)
    return dx
end

function emit!(sink::UpdateSink, name, field, w::DeviceArray, dw)
    leaf = placed(sink.optimiser.layers[name], field)
    m, v, t = leaf.state
    leaf.state = (m, v, t + 1)
    α, (r₁, r₂) = step_size(leaf.rule, Float32, t + 1), Float32.(1 .- leaf.rule.beta)
    launch!(adam_kernel!, w, length(w), w, m, v, dw, α, r₁, r₂, Float32(leaf.rule.epsilon), penalty_of(sink, name, field))
    return nothing
end

function emit!(sink::GradientSink, name, field, w::DeviceArray, dw)
    sink.arrays[name, field] = add_gradient!(copy(dw), penalty_of(sink, name, field), w)
    return nothing
end

# As `written_out_step!`. The loss is a few numbers an image, which the CPU computes; the device is waited for only there, so that
# the way back and the optimiser run while the CPU goes on.
function device_step!(sink, model, loss, x, y, weights, buffers)
    return with_precision(() -> loss_and_updates!(sink, model, loss, x, y, weights, buffers), buffers.device, buffers.tf32)
end

function loss_and_updates!(sink, model, loss, x, y, weights, buffers)
    w, parts = reshape(weights, 1, :), stages(model)
    terms = penalty_terms!(sink, model, buffers)
    values = run_forward(parts, x, buffers)
    logits = Array(last(values))::Matrix{Float32}
    sink.value[] = sum(Array(terms); init=0.0f0)
    value = data_loss(loss, logits, y, w)
    if isfinite(value)
        dz = copyto!(buffer(buffers, :loss, :dz, size(logits)...), data_loss_gradient(loss, logits, y, w))
        run_backward(parts, values, dz, buffers, sink)
    end
    return (; loss=value, penalty=sink.value[], logits)
end

# The value of each penalty, on the device.
function penalty_terms!(sink, model, buffers)
    terms = buffer(buffers, :penalties, :terms, length(sink.penalties))
    isempty(terms) || fill!(terms, 0)
    for (i, (name, p)) in enumerate(sink.penalties)
        Base.mapreducedim!(weight -> term(p, weight), +, view(terms, i:i), vec(model[name].weight))
    end
    return terms
end

# The logits of images, `outputs×N`, in the computer's memory.
function device_logits(model, images, numbers, batch_size)
    return with_device_buffers(device_of(model)) do buffers
        map(Iterators.partition(numbers, batch_size)) do batch
            disable_sigint(() -> dispatch_barrier(device_logits_of, model, sent_to_device(images, batch, buffers), buffers))::Matrix{Float32}
        end
    end
end

function device_logits_of(model, x, buffers)
    has_device_path(model, x) || return convert(Matrix{Float32}, on_host(model(x)))
    return Array(last(run_forward(stages(model), x, buffers)))
end
