# Batches on a device: the images are there as bytes, or are copied there while the batch before trains; a kernel makes numbers of
# them and transforms the copies.

function start_gathering!(buffers::DeviceBuffers, x, data, items; seed, epoch)
    maps, images = maps_of(items, size(x), seed, epoch), buffers.resident
    if images !== nothing
        gather_on_device!(x, images, Int32[item.index for item in items], maps, buffers, :resident)
        return Task[]
    end
    # The arrays are looked up here and not in the task: two tasks must not change a dictionary at once.
    role, n = in_turn!(buffers, :sent), length(items)
    sent, staged = image_buffer(buffers, data.images, role, n), staging_array!(buffers, data.images, role, n)
    index_buffer(buffers, role, :chosen, n), buffer(buffers, role, :maps, size(maps)...)
    return [Threads.@spawn disable_sigint() do
        copy_chosen!(staged, data.images, [item.index for item in items])
        copyto!(sent, staged)
        gather_on_device!(x, sent, Int32.(1:n), maps, buffers, role)
        KernelAbstractions.synchronize(get_backend(x))
    end]
end

# A column an image: whether it is transformed, and if so its coordinate map.
function maps_of(items, shape, seed, epoch)
    maps = zeros(Float32, 5, length(items))
    for (b, item) in enumerate(items)
        item.copy == 0 && continue
        drawn = draw_augmentation(derived_rng(seed, "augment", epoch, item.index, item.copy))
        maps[:, b] .= (1, coordinate_map(Float32, drawn)...)
    end
    return maps
end

function gather_on_device!(x, images, chosen, maps, buffers, role)
    places, transforms = index_buffer(buffers, role, :chosen, length(chosen)), buffer(buffers, role, :maps, size(maps)...)
    copyto!(places, chosen)
    copyto!(transforms, maps)
    launch!(gather_kernel!, x, length(x), x, images, places, transforms, size(x)[1:3]...)
    return x
end

# Bytes are sent as bytes.
image_buffer(buffers, images::AbstractArray{UInt8}, role, n) = byte_buffer(buffers, role, :sent, size(images)[1:3]..., n)
image_buffer(buffers, images, role, n) = buffer(buffers, role, :sent, size(images)[1:3]..., n)

# An array of the host from which a batch is copied; the last batch of an epoch may be shorter.
function staging_array!(buffers, images, role, n)
    T, dims, kept = eltype(images) === UInt8 ? UInt8 : Float32, (size(images)[1:3]..., n), get(buffers.staged, role, nothing)
    kept isa Array{T,4} && size(kept) == dims && return kept
    return buffers.staged[role] = Array{T}(undef, dims)
end

function copy_chosen!(to, images, chosen)
    for (b, number) in enumerate(chosen)
        copyto!(view(to, :, :, :, b), view(images, :, :, :, number))
    end
    return to
end

# The chosen images as a model on the device takes them.
function sent_to_device(images, batch, buffers)
    sent, staged = image_buffer(buffers, images, :input, length(batch)), staging_array!(buffers, images, :input, length(batch))
    copyto!(sent, copy_chosen!(staged, images, batch))
    x = buffer(buffers, :input, :images, size(sent)...)
    return gather_on_device!(x, sent, Int32.(eachindex(batch)), zeros(Float32, 5, length(batch)), buffers, :input)
end
