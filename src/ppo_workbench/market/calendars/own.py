"""Calendars that a market needs and exchange_calendars lacks, found by name beside its own."""

from datetime import time
from zoneinfo import ZoneInfo

from exchange_calendars import ExchangeCalendar
from exchange_calendars.exchange_calendar import HolidayCalendar
from exchange_calendars.exchange_calendar_cmes import CMESExchangeCalendar
from pandas.tseries.holiday import Holiday


class FxCalendar(ExchangeCalendar):  # type: ignore[misc]
    """The week of spot FX: Sunday 17:00 to Friday 17:00 New York.

    A session rolls at 17:00 and has the date on which it ends.  As usual in retail FX the
    sessions of 25 December and 1 January are closed, on weekdays only and never moved.
    """

    name = "FX"
    tz = ZoneInfo("America/New_York")
    open_times = ((None, time(17)),)
    close_times = ((None, time(17)),)
    open_offset = -1

    @property
    def regular_holidays(self) -> HolidayCalendar:
        """25 December and 1 January."""
        return HolidayCalendar(
            [Holiday("Christmas", month=12, day=25), Holiday("New Year", month=1, day=1)]
        )


class GlobexCalendar(CMESExchangeCalendar):  # type: ignore[misc]
    """CME Globex equity index futures: 17:00 to 16:00 Chicago the next day.

    Sessions, holidays and early closes are those of CMES; the hour before 17:00 is closed.
    """

    name = "GLOBEX"
    close_times = ((None, time(16)),)


OWN_CALENDARS: dict[str, type[ExchangeCalendar]] = {"FX": FxCalendar, "GLOBEX": GlobexCalendar}
