"""
    Augmentation(flip_x, flip_y, angle, zoom)

One drawn transformation of an image, the composition of Keras' `RandomFlip`, `RandomRotation` and `RandomZoom`.

# Fields
- `flip_x::Bool`, `flip_y::Bool`: mirrored left to right, top to bottom.
- `angle::Float32`: radians, from x towards y (downwards).
- `zoom::Float32`: factor on coordinates: above 1 zooms out, below 1 zooms in.
"""
struct Augmentation
    flip_x::Bool
    flip_y::Bool
    angle::Float32
    zoom::Float32
end

const MAX_ANGLE = 0.1f0 * 2.0f0 * Float32(π)
const MAX_ZOOM = 0.1f0

"""
    draw_augmentation(rng)

Draw flips (each with probability ½), an angle (uniform, ±36°) and a zoom (uniform, ±10 %).
"""
function draw_augmentation(rng::SplitMix)
    symmetric() = 2.0f0 * uniform!(rng) - 1.0f0
    return Augmentation(coin!(rng), coin!(rng), MAX_ANGLE * symmetric(), 1.0f0 + MAX_ZOOM * symmetric())
end

"""
    augment!(out, image, augmentation)

Write the transformed image: flip, then rotation, then zoom, all about the centre, in one pass over the output.

Each output pixel is mapped back into the image and interpolated bilinearly; outside, the nearest pixel is taken. The
coordinate maps are those of `keras.layers.RandomFlip`, `RandomRotation` and `RandomZoom` with `fill_mode="nearest"`,
which interpolate once a layer; one pass blurs less.

# Arguments
- `out`: `W×H×C`, floating point.
- `image`: `W×H×C`, 0 to 255.
- `augmentation::Augmentation`

# Returns
- `out`
"""
function augment!(out::AbstractArray{T,3}, image::AbstractArray{<:Any,3}, a::Augmentation) where {T<:AbstractFloat}
    size(out) == size(image) || throw(DimensionMismatch("`out` is $(size(out)), the image $(size(image))."))
    width, height, channels = size(image)
    map_of = coordinate_map(T, a)
    @inbounds for j in 1:height, i in 1:width
        i₀, j₀, i₁, j₁, fx, fy = source_of(T, i, j, width, height, map_of)
        for k in 1:channels
            out[i, j, k] = between(T(image[i₀, j₀, k]), T(image[i₁, j₀, k]), T(image[i₀, j₁, k]), T(image[i₁, j₁, k]), fx, fy)
        end
    end
    return out
end

# By how much x and y in the image change with an output step in x, and in y; the flips come last, so they change signs only.
function coordinate_map(::Type{T}, a::Augmentation) where {T}
    s, c = sincos(T(a.angle))
    zoom = T(a.zoom)
    sx, sy = a.flip_x ? -one(T) : one(T), a.flip_y ? -one(T) : one(T)
    return sx * c * zoom, -sx * s * zoom, sy * s * zoom, sy * c * zoom
end

# The four pixels between which an output pixel lies in the image, and how far it is from the first of them, from 0 to 1.
@inline function source_of(::Type{T}, i, j, width, height, (xx, xy, yx, yy)) where {T}
    cx, cy = T(width - 1) / 2, T(height - 1) / 2
    dx, dy = T(i - 1) - cx, T(j - 1) - cy
    x = clamp(cx + xx * dx + xy * dy, zero(T), T(width - 1))
    y = clamp(cy + yx * dx + yy * dy, zero(T), T(height - 1))
    i₀, j₀ = unsafe_trunc(Int, x), unsafe_trunc(Int, y)
    return i₀ + 1, j₀ + 1, min(i₀ + 1, width - 1) + 1, min(j₀ + 1, height - 1) + 1, x - i₀, y - j₀
end

@inline function between(top_left, top_right, bottom_left, bottom_right, fx, fy)
    top = (1 - fx) * top_left + fx * top_right
    bottom = (1 - fx) * bottom_left + fx * bottom_right
    return (1 - fy) * top + fy * bottom
end
