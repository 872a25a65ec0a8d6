//! The terminal while `weir top` has it.

use std::io::Write;
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};
use crossterm::{cursor, queue, style};

/// What was on the terminal before comes back with the end of the value.
pub struct Screen<'o, W: Write>(&'o mut W);

impl<'o, W: Write> Screen<'o, W> {
    pub fn open(out: &'o mut W) -> anyhow::Result<Screen<'o, W>> {
        enable_raw_mode()?;
        // From here on the terminal is set back, also when the next step fails.
        let screen = Screen(out);
        queue!(screen.0, EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Writes over the frame before, so nothing flickers.
    pub fn draw(&mut self, lines: &[String]) -> anyhow::Result<()> {
        let (width, height) = size()?;
        let width = usize::from(width).max(1);
        let wrapped = lines.iter().flat_map(|line| wrap(line, width));
        let fitting: Vec<String> = wrapped.take(height.into()).collect();
        for (row, line) in fitting.iter().enumerate() {
            let row = u16::try_from(row).unwrap_or(u16::MAX);
            queue!(
                self.0,
                cursor::MoveTo(0, row),
                style::Print(line),
                Clear(ClearType::UntilNewLine)
            )?;
        }
        if fitting.len() < height.into() {
            queue!(self.0, style::Print("\r\n"), Clear(ClearType::FromCursorDown))?;
        }
        Ok(self.0.flush()?)
    }

    /// Waits so long for a key; true for those that end it.
    pub fn is_left(&mut self, time: Duration) -> anyhow::Result<bool> {
        let until = Instant::now() + time;
        while poll(until.saturating_duration_since(Instant::now()))? {
            let Event::Key(key) = read()? else { continue };
            let is_break = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
            let is_end = is_break || [KeyCode::Char('q'), KeyCode::Esc].contains(&key.code);
            if is_end && key.kind == KeyEventKind::Press {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// At least one line.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = line.chars().collect();
    let lines: Vec<String> = characters.chunks(width).map(|part| part.iter().collect()).collect();
    if lines.is_empty() { vec![String::new()] } else { lines }
}

impl<W: Write> Drop for Screen<'_, W> {
    fn drop(&mut self) {
        let _ = queue!(self.0, cursor::Show, LeaveAlternateScreen);
        let _ = self.0.flush();
        let _ = disable_raw_mode();
    }
}
