# One step of Adam on the total loss of a batch, and the gradient alone: by kernels written out for a CPU (step.jl) or a device
# (devices/step.jl) where a model has only their layers, by Zygote otherwise.

"""
    train_step!(model, optimiser, loss, penalties, x, y, weights, buffers = Buffers())

Make one step of Adam on the total loss of a batch, in place.

# Arguments
- `model::Chain`, `optimiser`: of `Optimisers.setup` with [`KerasAdam`](@ref).
- `loss`: of [`loss_of`](@ref).
- `penalties`: of [`kernel_penalties`](@ref).
- `x`: `W×H×C×B`, 0 to 255; `y`: `outputs×B`; `weights`: of each image in the loss.
- `buffers`: give the arrays, which the next step uses again.

# Returns
- `NamedTuple`: `loss`, `penalty` and `logits` before the step.
"""
function train_step!(model, optimiser, loss, penalties, x, y, weights, buffers=Buffers())
    if has_fast_path(model, x)
        return written_out_step!(UpdateSink(penalties, optimiser), model, loss, x, y, weights, buffers)
    elseif has_device_path(model, x)
        return device_step!(UpdateSink(penalties, optimiser), model, loss, x, y, weights, buffers)
    end
    result, gradient = total_gradient(model, loss, penalties, x, y, weights)
    if isfinite(result.loss + result.penalty)
        Optimisers.update!(optimiser, model, gradient)
        proximal_steps!(model, optimiser, penalties)
    end
    return result
end

# The sink gets no gradient if the loss is not finite.
function written_out_step!(sink, model, loss, x, y, weights, buffers)
    w = reshape(weights, 1, :)
    # The arrays of a step point into the buffers.
    return GC.@preserve buffers on_all_threads() do
        parts = stages(model)
        values = run_forward(parts, x, buffers)
        logits = copy(last(values))::Matrix{Float32}
        value = data_loss(loss, logits, y, w)
        isfinite(value) && run_backward(parts, values, data_loss_gradient(loss, logits, y, w), buffers, sink)
        return (; loss=value, penalty=sink.value[], logits)
    end
end

# An array where another is.
like(::Array, x) = x
like(array, x) = copyto!(similar(array, size(x)), x)

# The gradient of data loss + penalty: written out for our layers, else Zygote's through the layers, the loss's
# and the penalty's written out. Zygote sees no name of this module: on Julia 1.12 the two halves of a pullback that
# refers to one can stop fitting each other when another package invalidates them after precompilation.
function total_gradient(model, loss, penalties, x, y, weights, buffers=Buffers())
    if has_fast_path(model, x)
        sink = GradientSink(penalties)
        result = written_out_step!(sink, model, loss, x, y, weights, buffers)
        return result, as_gradient(sink, model)
    elseif has_device_path(model, x)
        sink = GradientSink(penalties)
        result = device_step!(sink, model, loss, x, y, weights, DeviceBuffers(get_device(x)))
        return result, as_gradient(sink, model)
    end
    # Our own models never come here, so it is compiled when it is first called and not with the rest.
    return dispatch_barrier(zygote_gradient, model, loss, penalties, x, y, reshape(weights, 1, :))
end

function zygote_gradient(model, loss, penalties, x, y, w)
    z, back = Zygote.pullback(m -> m(x), model)
    # The loss is a few numbers an image, which the CPU computes wherever the model is.
    logits = on_host(z)
    value = data_loss(loss, logits, y, w)
    gradient = only(back(like(z, data_loss_gradient(loss, logits, y, w))))
    for (name, p) in penalties
        of_layer = kernel_at(gradient, name)
        of_layer === nothing && throw(ArgumentError("The layer `$name` has a penalty and does not reach the logits."))
        add_gradient!(of_layer.weight, p, kernel_at(model, name).weight)
    end
    return (; loss=value, penalty=penalty_value(penalties, model), logits), gradient
end
