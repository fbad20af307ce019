"""Default names: two words for a reservation that its owner did not name."""

from __future__ import annotations

CHOICES = 20
"""Number of names for one id."""

# Plain words, easy to spell and to say. Neither count shares a factor with 36,
# so every character of an id matters.
_FIRST = (  # noqa: SIM905
    "able amber ample apt bold brave bright brisk calm candid cheery clear clever cosy crisp curly daring "
    "deft dewy eager early easy fair fancy fast fine firm fleet fluffy fond free fresh gentle glad golden "
    "good grand great green handy happy hardy hearty honest humble jolly keen kind large lively loyal lucky "
    "lunar mellow merry mighty mild modest neat nimble noble patient plucky polite prompt proud quick quiet "
    "rapid ready robust rosy round sandy sharp shiny silent silver smart smooth snowy solar solid sound "
    "spry steady stout sunny super sweet swift tall tidy trusty upbeat vivid warm wise witty young zesty"
).split()
_SECOND = (  # noqa: SIM905
    "acorn alder apple badger basil beacon beaver birch bison bloom breeze brook canyon cedar cherry clover "
    "cobalt comet coral crane cricket daisy dolphin dove dune eagle elm ember falcon fern finch fjord "
    "forest fox garnet gecko geyser glacier grove harbor hare hawk hazel heron hill ibis iris island ivy "
    "jaguar jasmine juniper kite koala lagoon lake lark laurel lemur lilac lily linden lotus lynx maple "
    "marten meadow meteor mint moon moose moss nectar newt oak oasis ocean olive orbit orchid osprey otter "
    "owl panda pebble pepper pine planet plover pond poppy prairie puffin quail quartz raven reef ridge "
    "river robin saffron salmon sparrow spruce summit swan tulip tundra turtle valley walnut willow wren"
).split()


def default_names(id: str) -> tuple[str, ...]:
    """Return ``CHOICES`` different names for the reservation ``id``, best first.

    They depend on the random id alone, so that a repeated request can be recognised.
    """
    number = int(id.replace("-", ""), 36)
    pairs = (divmod(number + offset, len(_FIRST)) for offset in range(CHOICES))
    return tuple(f"{_FIRST[first]}-{_SECOND[rest % len(_SECOND)]}" for rest, first in pairs)
