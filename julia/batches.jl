"""
    Item(index, copy)

An image of an epoch: `copy` 0 is the image as it is, 1 and above are augmented copies of it.
"""
struct Item
    index::Int
    copy::Int
end

"""
    epoch_items(data, seed, epoch, balance)

Return the training images of an epoch, in the order in which they are used.

# Arguments
- `data::PreparedDataset`
- `seed::Integer`, `epoch::Integer`: fix the order and the copies.
- `balance::AbstractString`: with `"augment"` every smaller class is topped up to the size of the largest with augmented
  copies, each image copied equally often, give or take one; otherwise each image comes once.

# Returns
- `Vector{Item}`
"""
function epoch_items(data::PreparedDataset, seed, epoch, balance)
    training = indices(data, :train)
    items = [Item(i, 0) for i in training]
    if balance == "augment"
        classes = [filter(i -> data.labels[i] == class, training) for class in unique(data.labels[training])]
        largest = maximum(length, classes)
        for members in classes
            chosen = shuffled(derived_rng(seed, "copies", epoch, data.labels[first(members)]), members)
            append!(items, (Item(chosen[mod1(k, end)], cld(k, length(chosen))) for k in 1:(largest - length(members))))
        end
    end
    return shuffled(derived_rng(seed, "order", epoch), items)
end

"""
    class_weights(data, balance)

Return the factor of each class in the data loss: 1, or with `"weights"` `N / (K·Nₖ)` over the training part.
"""
function class_weights(data::PreparedDataset, balance)
    K = length(data.classes)
    balance == "weights" || return ones(Float32, K)
    labels = data.labels[indices(data, :train)]
    counts = [count(==(k), labels) for k in 0:(K - 1)]
    return Float32[n == 0 ? 0 : length(labels) / (count(>(0), counts) * n) for n in counts]
end

"""
    gather(data, items; seed, epoch)

Return the images of a batch, `W×H×C×B` of `Float32`, 0 to 255, the copies augmented, in parallel; or its features.

The augmentation of an item is drawn per (seed, epoch, image, copy), so it does not depend on the order of the threads.
"""
function gather(data::PreparedDataset, items::AbstractVector{Item}; seed, epoch)
    x = Array{Float32}(undef, image_shape(data)..., length(items))
    foreach(wait, start_gathering!(Buffers(), x, data, items; seed, epoch))
    return x
end

# Starts tasks that fill `x`, and returns them. Interrupts are disabled in them: the fit handles these.
function start_gathering!(::Buffers, x, data, items; seed, epoch)
    shares = Iterators.partition(eachindex(items), cld(length(items), Threads.nthreads()))
    return map(collect(shares)) do share
        Threads.@spawn disable_sigint(() -> gather!(x, data.images, items, share; seed, epoch))
    end
end

# Compiled for images and for features.
function gather!(x, images, items, share; seed, epoch)
    for b in share
        item = items[b]
        out, image = view(x, :, :, :, b), view(images, :, :, :, item.index)
        if item.copy == 0
            copyto!(out, image)
        else
            rng = derived_rng(seed, "augment", epoch, item.index, item.copy)
            augment!(out, image, draw_augmentation(rng))
        end
    end
end

# Calls work(chosen, x, waited) for every batch of items in turn; the next batch is gathered meanwhile. `waited`: the
# seconds for which `x` was waited for. `x` is good until `work` returns, which ends the loop by anything but `nothing`.
function each_batch(work, data, items, batch_size; seed, epoch, buffers)
    isempty(items) && return nothing
    batches = collect(Iterators.partition(items, batch_size))
    # Double buffering: a batch is filled while the one before trains.
    array(i) = buffer(buffers, :gathered, isodd(i) ? :odd : :even, image_shape(data)..., length(batches[i]))
    start(i) = (x = array(i); (x, start_gathering!(buffers, x, data, batches[i]; seed, epoch)))
    GC.@preserve buffers begin
        started = Ref(start(1))
        try
            for (i, chosen) in enumerate(batches)
                # Interrupts are handled between two batches: within a step, one would leave some weights updated and others
                # not, and it is unsafe while tasks are waited for or Python is called.
                result = disable_sigint() do
                    x, tasks = started[]
                    waited = @elapsed foreach(wait, tasks)
                    i < length(batches) && (started[] = start(i + 1))
                    work(chosen, x, waited)
                end
                result === nothing || return result
            end
        finally
            # Nothing may write into the buffers after this.
            disable_sigint(() -> foreach(wait, last(started[])))
        end
    end
    return nothing
end

"""
    targets(labels, classes)

Return the targets, `outputs×B` of `Float32`: 0 or 1 for two classes, else one-hot columns. Labels count from 0.
"""
function targets(labels::AbstractVector{<:Integer}, classes::Integer)
    classes == 2 && return reshape(Float32.(labels), 1, :)
    return Float32.(onehotbatch(labels, 0:(classes - 1)))
end
